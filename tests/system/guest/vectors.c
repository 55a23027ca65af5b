// SPDX-License-Identifier: Apache-2.0
// Vector and mask registers of AVX-512 belong to their thread: processes that switch all the time, with signal handlers
// that use the registers, keep their own in all of them; a child has its parent's. A new program (fresh_vectors.S, its
// file is the argument) starts with zeroes.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kVectors = 32, kMasks = 8, kChildren = 4, kRounds = 20000 };

struct Registers {
  uint64_t vector[kVectors][8];
  uint64_t mask[kMasks];
};

#define LOAD(n) "vmovdqu64 " #n "*64(%[from]), %%zmm" #n "\n"
#define STORE(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%[to])\n"
#define LOAD_MASK(n) "kmovq 2048+8*" #n "(%[from]), %%k" #n "\n"
#define STORE_MASK(n) "kmovq %%k" #n ", 2048+8*" #n "(%[to])\n"
#define EIGHT(X, a, b, c, d, e, f, g, h) X(a) X(b) X(c) X(d) X(e) X(f) X(g) X(h)
#define UPPER(X) EIGHT(X, 16, 17, 18, 19, 20, 21, 22, 23) EIGHT(X, 24, 25, 26, 27, 28, 29, 30, 31)
#define ALL(X) EIGHT(X, 0, 1, 2, 3, 4, 5, 6, 7) EIGHT(X, 8, 9, 10, 11, 12, 13, 14, 15) UPPER(X)
#define CLOBBERED                                                                                                  \
  "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/// Loads all registers, makes a system call, and stores them.
static long across(const struct Registers* from, struct Registers* to, long call) {
  long result;
  __asm__ volatile(ALL(LOAD) EIGHT(LOAD_MASK, 0, 1, 2, 3, 4, 5, 6, 7) "syscall\n" ALL(STORE)
                       EIGHT(STORE_MASK, 0, 1, 2, 3, 4, 5, 6, 7) "vzeroupper\n"
                   : "=a"(result)
                   : [from] "r"(from), [to] "r"(to), "a"(call)
                   : CLOBBERED);
  return result;
}

static void fill(struct Registers* r, uint64_t* seed) {
  for (size_t i = 0; i < sizeof *r; i += 8) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    uint64_t word = *seed ^ *seed >> 29;
    memcpy((char*)r + i, &word, 8);
  }
}

static void compare(const char* what, const struct Registers* a, const struct Registers* b) {
  for (size_t i = 0; i < sizeof *a; i += 8) {
    if (memcmp((const char*)a + i, (const char*)b + i, 8) == 0) continue;
    printf("%s: byte %zu of %s %zu differs\n", what, i % 64, i < 2048 ? "vector" : "mask",
           i < 2048 ? i / 64 : i % 64 / 8);
    exit(1);
  }
}

static volatile sig_atomic_t signals;
static void onAlarm(int number) {
  static struct Registers mine, back;
  uint64_t seed = (uint64_t)number + (uint64_t)signals++;
  fill(&mine, &seed);
  across(&mine, &back, SYS_getppid);
  compare("signal handler", &mine, &back);
}

static void child(uint64_t seed) {
  struct sigaction action = {.sa_handler = onAlarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval timer = {{0, 3000}, {0, 3000}};
  setitimer(ITIMER_REAL, &timer, NULL);
  static struct Registers before, after;
  for (int i = 0; i < kRounds || signals < 20; ++i) {
    fill(&before, &seed);
    across(&before, &after, SYS_sched_yield);
    compare("process", &before, &after);
  }
  exit(0);
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  for (uint64_t i = 1; i <= kChildren; ++i) {
    if (fork() == 0) child(i);
  }
  static struct Registers before, after;
  uint64_t seed = 99;
  fill(&before, &seed);
  pid_t pid = (pid_t)across(&before, &after, SYS_fork);
  compare(pid == 0 ? "forked child" : "parent", &before, &after);
  if (pid == 0) {
    across(&before, &after, SYS_getpid);
    execl(arguments[1], arguments[1], NULL);
    return 1;
  }
  int status, bad = 0;
  while (wait(&status) > 0) bad |= status != 0;
  if (!bad) puts("vectors kept");
  return bad;
}
