// SPDX-License-Identifier: Apache-2.0
// A program that computes sees where the time stamp counter is while another one, with root's rights, sets it
// forward, by /dev/cpu/0/msr. For one CPU, which is never idle: there Linux would set the counter back.
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IA32_TSC = 0x10, ROUNDS = 3 };

static uint64_t tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

// A page of its own: nothing in it keeps it from running as it is.
__attribute__((noinline, aligned(4096))) static void compute(volatile uint64_t *seen) {
  for (uint64_t sum = 0;;) {
    for (int n = 0; n < 100000; ++n) sum = sum * 6364136223846793005u + 1442695040888963407u;
    seen[1] = sum;
    seen[0] = tsc();
  }
}

__attribute__((aligned(4096))) static void fail(const char *what) {
  perror(what);
  exit(1);
}

int main(void) {
  const uint64_t kJump = 1ull << 50;
  volatile uint64_t *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int msr = open("/dev/cpu/0/msr", O_RDWR);
  if (seen == MAP_FAILED || msr < 0) fail("/dev/cpu/0/msr");
  pid_t child = fork();
  if (child == 0) compute(seen);
  if (child < 0) fail("fork");
  int wrong = 0;
  for (int round = 0; round < ROUNDS; ++round) {
    sleep(2);
    uint64_t value = 0, first = seen[0];
    if (pread(msr, &value, sizeof value, IA32_TSC) != sizeof value) fail("read the counter");
    value += kJump;
    if (pwrite(msr, &value, sizeof value, IA32_TSC) != sizeof value) fail("write the counter");
    sleep(2);
    uint64_t now = tsc(), last = seen[0];
    if (last < value || last > now) {
      printf("WRONG: set to %llx, is %llx, the program sees %llx, before %llx\n", (unsigned long long)value,
             (unsigned long long)now, (unsigned long long)last, (unsigned long long)first);
      wrong = 1;
    }
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  puts(wrong ? "it does not follow" : "it follows");
  return 0;
}
