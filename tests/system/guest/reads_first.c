// SPDX-License-Identifier: Apache-2.0
// Pages that are read before they are written, each of which is two page faults: new memory, copied files, memory after
// fork(); and what may come between the two: a fault elsewhere, a system call, a trap, a page that stays as it is.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kPage = 4096, kPages = 64 };

static sigjmp_buf back;
static volatile uintptr_t faultAt;
static volatile int traps;

static void onFault(int number, siginfo_t* info, void* context) {
  (void)context;
  faultAt = (uintptr_t)info->si_addr;
  siglongjmp(back, number);
}

static void onTrap(int number) {
  (void)number;
  ++traps;
}

static uint8_t* pages(int protection, int file) {
  void* p = mmap(0, kPages * kPage, protection, MAP_PRIVATE | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
  if (p == MAP_FAILED) exit(1);
  madvise(p, kPages * kPage, MADV_NOHUGEPAGE);
  return p;
}

static uint64_t addToAll(volatile uint8_t* p, int step) {
  uint64_t sum = 0;
  for (int n = 0; n < kPages; ++n) {
    for (int at = 0; at < kPage; at += step) sum = sum * 31 + ++p[n * kPage + at];
  }
  return sum;
}

int main(void) {
  usleep(500000);  // until what ran before needs its executor no longer: a vCPU has four
  struct sigaction action = {.sa_sigaction = onFault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, 0);
  signal(SIGTRAP, onTrap);

  uint8_t* fresh = pages(PROT_READ | PROT_WRITE, -1);
  printf("new memory: %llx %llx\n", (unsigned long long)addToAll(fresh, 64), (unsigned long long)addToAll(fresh, 512));

  int file = memfd_create("file", 0);
  for (int n = 0; n < kPages * kPage / 4; ++n) {
    uint32_t word = (uint32_t)n * 2654435761u;
    if (write(file, &word, 4) != 4) return 2;
  }
  uint8_t* copied = pages(PROT_READ | PROT_WRITE, file);
  printf("a file: %llx\n", (unsigned long long)addToAll(copied, 256));
  uint8_t again[kPage];
  printf("is the same: %d\n", pread(file, again, kPage, 0) == kPage && again[0] == (uint8_t)(copied[0] - 1));

  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    printf("child: %llx\n", (unsigned long long)addToAll(fresh, 128));
    fflush(stdout);
    _exit(0);
  }
  waitpid(child, 0, 0);
  printf("parent: %llx\n", (unsigned long long)addToAll(fresh, 128));

  // It stays as it is: read, and the write a few instructions later is refused.
  volatile uint8_t* fixed = pages(PROT_READ, -1);
  int refused = 0, right = 0;
  for (volatile int n = 0; n < kPages; ++n) {
    if (sigsetjmp(back, 1) == 0) {
      fixed[n * kPage + 8] = (uint8_t)(fixed[n * kPage + 8] + 1);
    } else {
      ++refused;
      right += faultAt == (uintptr_t)fixed + (uintptr_t)n * kPage + 8;
    }
  }
  printf("refused: %d, where it was: %d\n", refused, right);

  // Another page faults between the two.
  volatile uint8_t *one = pages(PROT_READ | PROT_WRITE, -1), *two = pages(PROT_READ | PROT_WRITE, -1);
  uint64_t sum = 0;
  for (int n = 0; n < kPages; ++n) {
    uint8_t first = one[n * kPage], second = two[(kPages - 1 - n) * kPage];
    two[(kPages - 1 - n) * kPage] = (uint8_t)(first + n);
    one[n * kPage] = (uint8_t)(second + 3 * n);
    sum = sum * 17 + one[n * kPage] + two[n * kPage];
  }
  printf("two at once: %llx\n", (unsigned long long)sum);

  // A system call, a trap, single steps and a counter between them.
  volatile uint8_t* calls = pages(PROT_READ | PROT_WRITE, -1);
  int same = 0;
  for (int n = 0; n < kPages; ++n) {
    uint8_t seen = calls[n * kPage];
    long id;
    __asm__ volatile("syscall" : "=a"(id) : "0"(39L) : "rcx", "r11", "memory");  // getpid
    calls[n * kPage] = (uint8_t)(seen + 1);
    same += id == getpid();
  }
  volatile uint8_t* traced = pages(PROT_READ | PROT_WRITE, -1);
  for (int n = 0; n < kPages; ++n) {
    uint8_t seen = traced[n * kPage];
    if (n % 2 == 0) {
      __asm__ volatile("int3" ::: "memory");
    } else {
      __asm__ volatile("sub $128, %%rsp; pushf; orl $0x100, (%%rsp); popf; nop; nop; pushf; andl $~0x100, (%%rsp); popf; add $128, %%rsp"
                       ::: "memory", "cc");
    }
    traced[n * kPage] = (uint8_t)(seen + 1);
  }
  printf("calls: %d, traps: %d\n", same, traps);

  // One instruction that reads and writes; words that cross from one such page to the next.
  volatile uint8_t* locked = pages(PROT_READ | PROT_WRITE, -1);
  sum = 0;
  for (int n = 0; n + 1 < kPages; ++n) {
    uint64_t* across = (uint64_t*)(uintptr_t)(locked + (n + 1) * kPage - 4);
    uint64_t value = 0;
    memcpy(&value, across, 8);
    value += 0x0102030405060708u * (uint64_t)n;
    memcpy(across, &value, 8);
    sum = sum * 13 + value + __atomic_fetch_add((uint32_t*)(uintptr_t)(locked + n * kPage + 64), 7, __ATOMIC_SEQ_CST);
  }
  printf("across: %llx\n", (unsigned long long)sum);
  return 0;
}
