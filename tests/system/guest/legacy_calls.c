// SPDX-License-Identifier: Apache-2.0
// Ways into the kernel other than SYSCALL with a number of its own table: the vsyscall page (the kernel's argument
// vsyscall=xonly), 32-bit calls by INT 80, and the x32 numbers, which must be absent. Linked statically.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), exit(1)))

static sigjmp_buf back;
static volatile uintptr_t faultAddress;
static void onFault(int number, siginfo_t* info, void* context) {
  (void)number, (void)context;
  faultAddress = (uintptr_t)info->si_addr;
  siglongjmp(back, 1);
}

static const uintptr_t kVsyscall = 0xffffffffff600000;

static void vsyscallPage(void) {
  int (*getTimeOfDay)(struct timeval*, struct timezone*) = (int (*)(struct timeval*, struct timezone*))kVsyscall;
  time_t (*getTime)(time_t*) = (time_t(*)(time_t*))(kVsyscall + 0x400);
  int (*getCpu)(unsigned*, unsigned*, void*) = (int (*)(unsigned*, unsigned*, void*))(kVsyscall + 0x800);
  for (int i = 0; i < 2000; ++i) {
    struct timeval now = {0, 0};
    time_t before = time(NULL);
    CHECK(getTimeOfDay(&now, NULL) == 0);
    CHECK(now.tv_sec >= before && now.tv_sec <= before + 5);
    CHECK(getTime(NULL) >= before);
    unsigned cpu = 99, node = 99;
    CHECK(getCpu(&cpu, &node, NULL) == 0 && cpu < 64 && node == 0);
  }
  // It may be called, and not be read; and between its entries there is nothing.
  if (sigsetjmp(back, 1) == 0) {
    (void)*(volatile char*)kVsyscall;
    CHECK(!"the vsyscall page can be read");
  }
  CHECK(faultAddress == kVsyscall);
  if (sigsetjmp(back, 1) == 0) {
    ((void (*)(void))(kVsyscall + 0x10))();
    CHECK(!"the vsyscall page has code between its entries");
  }
}

static long int80(long number, long a) {
  long result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "a"(number), "b"(a), "c"(0L), "d"(0L)
                   : "memory", "r8", "r9", "r10", "r11");
  return result;
}

int main(void) {
  struct sigaction action = {.sa_sigaction = onFault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  vsyscallPage();
  for (int i = 0; i < 2000; ++i) {
    CHECK(int80(20, 0) == getpid());  // getpid of the 32-bit table
    CHECK(int80(6, -1) == -EBADF);    // close
  }
  CHECK(syscall(0x40000000 + SYS_getpid) == -1 && errno == ENOSYS);
  CHECK(syscall(0x40000000 + 512) == -1 && errno == ENOSYS);
  puts("legacy calls work");
  return 0;
}
