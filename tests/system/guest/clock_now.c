// SPDX-License-Identifier: Apache-2.0
// Prints the seconds of a clock with a device of its own, as /dev/ptp0: clock_now DEVICE
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv) {
  int fd = open(argc > 1 ? argv[1] : "/dev/ptp0", O_RDONLY);
  struct timespec now;
  // Linux, FD_TO_CLOCKID.
  if (fd < 0 || clock_gettime(~(clockid_t)fd << 3 | 3, &now) != 0) {
    perror("clock_now");
    return 1;
  }
  printf("%ld\n", (long)now.tv_sec);
  return 0;
}
