// SPDX-License-Identifier: Apache-2.0
// Branches to where no code is: the other half's alias of the program's own code, addresses that are not canonical, null,
// data. And what lies at odd places: the vsyscall page, x32's system calls (absent), 32-bit code in a 64-bit process.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), exit(1)))

static sigjmp_buf back;
static volatile uintptr_t faultAddress;

static void caught(int number, siginfo_t* info, void* unused) {
  (void)number, (void)unused;
  faultAddress = (uintptr_t)info->si_addr;
  siglongjmp(back, 1);
}

static __attribute__((noinline)) long answer(void) { return 42; }

/// Whether calling there is a fault.
static __attribute__((noinline)) int faults(uintptr_t target) {
  faultAddress = 1;
  if (sigsetjmp(back, 1)) return 1;
  ((long (*)(void))target)();
  return 0;
}

/// In 32-bit code, by a far return and back: EAX = 6 * 7 computed there, with INC (a REX prefix otherwise).
static long compatibility(void) {
  static const unsigned char code[] = {0xb8, 5, 0, 0, 0, 0x40, 0x6b, 0xc0, 7, 0xcb};  // mov eax,5; inc eax; imul eax,7; retf
  unsigned char* low = mmap((void*)0x10000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(low == (void*)0x10000000);
  memcpy(low, code, sizeof code);
  // The way back is 64-bit code in low memory, too: far returns of 32-bit code take 8 bytes from the stack.
  low[64] = 0xc3;
  uint32_t* stack = (uint32_t*)(low + 8192 - 64);
  stack[0] = 0x10000040, stack[1] = 0x33;
  long result = 0;
  __asm__ volatile(
      "mov %%rsp, %%r12\n mov %[stack], %%rsp\n"
      "lea 1f(%%rip), %%rcx\n mov %%rcx, 8(%%rsp)\n"
      "lea -16(%%rsp), %%rsp\n movq $0x10000000, (%%rsp)\n movq $0x23, 8(%%rsp)\n lretq\n"
      "1: mov %%r12, %%rsp\n"
      : "=a"(result)
      : [stack] "r"(stack)
      : "r12", "rcx", "rdx", "rsi", "rdi", "rbx", "memory", "cc");
  munmap(low, 8192);
  return (uint32_t)result;
}

int main(void) {
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  uintptr_t code = (uintptr_t)answer;
  for (int i = 0; i < 200; ++i) {
    CHECK(answer() == 42);
    CHECK(!faults(code));
    // The alias in the kernel's half; the signal names the address.
    CHECK(faults(code | 0xffff800000000000) && faultAddress == (code | 0xffff800000000000));
    CHECK(faults(code ^ 1ul << (48 + i % 16)));  // not canonical
    CHECK(faults(0) && faultAddress == 0);
    CHECK(faults((uintptr_t)&action) && faultAddress == (uintptr_t)&action);  // not executable
    CHECK(faults(0xffffffff81000000) && faults(0xffff888000000000));
  }
  errno = 0;
  CHECK(syscall(0x40000000 | SYS_getpid) == -1 && errno == ENOSYS);
  // The vsyscall page executes if the kernel shows it, by a fault that it answers.
  char line[256];
  int shown = 0;
  FILE* maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps)) shown |= strstr(line, "[vsyscall]") != NULL;
  fclose(maps);
  for (int i = 0; i < 50 && shown; ++i) {
    if (sigsetjmp(back, 1)) break;
    long now = ((long (*)(long*))0xffffffffff600400)(NULL);
    CHECK(labs(now - time(NULL)) <= 1);
  }
  for (int i = 0; i < 100; ++i) CHECK(compatibility() == 42);
  printf("addresses: vsyscall page %s, all checks passed\n", shown ? "shown" : "absent");
  return 0;
}
