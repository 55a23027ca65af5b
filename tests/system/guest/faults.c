// SPDX-License-Identifier: Apache-2.0
// Faults as signals: each instruction's address, fault address and code, resumed after a repair, on an alternate stack;
// mprotect in all its changes; timers that interrupt computation.
#define _GNU_SOURCE
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), exit(1)))

static sigjmp_buf back;
static volatile sig_atomic_t gotSignal, gotCode, repairs, ticks, traps;
static void* volatile gotAddress;
static unsigned char* page;

static void jump(int number, siginfo_t* info, void* unused) {
  (void)unused;
  gotSignal = number;
  gotCode = info->si_code;
  gotAddress = info->si_addr;
  siglongjmp(back, 1);
}

static void repair(int number, siginfo_t* info, void* unused) {
  (void)number, (void)unused;
  ++repairs;
  gotAddress = info->si_addr;
  CHECK(mprotect(page, 8192, PROT_READ | PROT_WRITE) == 0);
}

static void handle(int number, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  action.sa_sigaction = handler;
  CHECK(sigaction(number, &action, NULL) == 0);
}

#define FAULTS(statement, number, code)                 \
  do {                                                  \
    gotSignal = 0;                                      \
    if (sigsetjmp(back, 1) == 0) {                      \
      statement;                                        \
    }                                                   \
    CHECK(gotSignal == (number) && gotCode == (code));  \
  } while (0)

static void segments(void) {
  volatile char* volatile low = (char*)16;
  handle(SIGSEGV, jump);
  FAULTS(*low = 1, SIGSEGV, SEGV_MAPERR);
  CHECK(gotAddress == (void*)16);
  CHECK(mprotect(page, 8192, PROT_READ) == 0);
  FAULTS(*(volatile unsigned char*)(page + 5000) = 1, SIGSEGV, SEGV_ACCERR);
  CHECK(gotAddress == page + 5000);
  FAULTS(((void (*)(void))(page + 64))(), SIGSEGV, SEGV_ACCERR);
  CHECK(gotAddress == page + 64);
  FAULTS(*(volatile char*)(uintptr_t)0x8000000000000000u, SIGSEGV, SI_KERNEL);  // not canonical: #GP
  FAULTS(__asm__ volatile("hlt"), SIGSEGV, SI_KERNEL);
  FAULTS(__asm__ volatile("mov %0, %%cr3" ::"r"(0L)), SIGSEGV, SI_KERNEL);
  // A store that crosses into a read-only page changes nothing of the first.
  CHECK(mprotect(page, 8192, PROT_READ | PROT_WRITE) == 0);
  memset(page, 0x11, 8192);
  CHECK(mprotect(page + 4096, 4096, PROT_READ) == 0);
  FAULTS(*(volatile uint64_t*)(page + 4092) = ~(uint64_t)0, SIGSEGV, SEGV_ACCERR);
  CHECK(gotAddress == page + 4096);
  for (int i = 4080; i < 4110; ++i) CHECK(page[i] == 0x11);
  FAULTS(memset(page + 4000, 0x22, 200), SIGSEGV, SEGV_ACCERR);
}

static void others(void) {
  static const double one = 1, zero = 0;
  handle(SIGFPE, jump);
  handle(SIGILL, jump);
  handle(SIGTRAP, jump);
  volatile long nothing = 0;
  FAULTS(nothing = 77 / nothing, SIGFPE, FPE_INTDIV);
  volatile long least = INT64_MIN, minus = -1;
  FAULTS(least = least / minus, SIGFPE, FPE_INTDIV);
  feenableexcept(FE_DIVBYZERO);
  FAULTS(*(volatile double*)page = *(volatile const double*)&one / *(volatile const double*)&zero, SIGFPE, FPE_FLTDIV);
  fedisableexcept(FE_ALL_EXCEPT);
  feclearexcept(FE_ALL_EXCEPT);
  FAULTS(__asm__ volatile("ud2"), SIGILL, ILL_ILLOPN);
  FAULTS(__asm__ volatile("int3"), SIGTRAP, SI_KERNEL);
}

static void repaired(void) {
  handle(SIGSEGV, repair);
  for (int i = 0; i < 3000; ++i) {
    CHECK(mprotect(page, 8192, i % 2 ? PROT_READ : PROT_NONE) == 0);
    *(volatile unsigned char*)(page + i % 8192) = (unsigned char)i;
    CHECK(gotAddress == page + i % 8192);
    CHECK(page[i % 8192] == (unsigned char)i);
  }
  CHECK(repairs == 3000);
}

static void step(int number, siginfo_t* info, void* context) {
  ucontext_t* c = context;
  (void)number, (void)info;
  if (++traps == 200) c->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

// The trap flag: one signal an instruction.
static void singleStepped(void) {
  handle(SIGTRAP, step);
  long sum = 0;
  __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
  for (int i = 0; i < 1000; ++i) {
    sum += i;
    __asm__ volatile("" : "+r"(sum));
  }
  CHECK(traps == 200 && sum == 499500);
}

static void tick(int number, siginfo_t* info, void* unused) {
  static volatile double garbage[8];
  (void)number, (void)info, (void)unused;
  for (int i = 0; i < 8; ++i) garbage[i] += ticks / 3.0 + i;  // vector registers must come back
  ++ticks;
}

static void timers(void) {
  handle(SIGALRM, tick);
  struct itimerval often = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
  CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
  double first = 0;
  for (int round = 0; round < 400 || ticks < 100; ++round) {
    double sum = 0, factor = 1.0000001;
    uint64_t whole = 1;
    for (int i = 0; i < 5000; ++i) {
      sum = sum * factor + i;
      whole = whole * 6364136223846793005u + 1442695040888963407u;
    }
    double all = sum + (double)(whole >> 32);
    if (round == 0) first = all;
    CHECK(all == first);
  }
  CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
}

int main(void) {
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  CHECK(sigaltstack(&stack, NULL) == 0);
  page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  segments();
  CHECK(mprotect(page, 8192, PROT_READ | PROT_WRITE) == 0);
  others();
  repaired();
  singleStepped();
  timers();
  puts("faults ok");
  return 0;
}
