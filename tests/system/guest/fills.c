// SPDX-License-Identifier: Apache-2.0
// Computes, fills new memory and computes with it, in turn: such a program goes from one way of running to another all
// the time. Prints a sum of each round.
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

enum { kRounds = 12, kBytes = 6 << 20, kWords = kBytes / 8 };

static uint64_t state = 88172645463325252u;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

int main(void) {
  double part = 1.0;
  for (int round = 0; round < kRounds; ++round) {
    for (int n = 0; n < 12000000; ++n) part += 1.0 / (double)(next() | 1);
    uint64_t* words = mmap(0, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) return 1;
    for (int n = 0; n < kWords; ++n) {
      if (words[n] != 0) return 2;
      words[n] = next();
    }
    uint64_t sum = 0;
    for (int turn = 0; turn < 4; ++turn) {
      for (int n = 0; n < kWords; ++n) sum += words[(n * 4093u + (unsigned)turn) % kWords] * (uint64_t)(2 * n + 1);
    }
    printf("round %d: %016llx %.17g\n", round, (unsigned long long)sum, part);
    if (round % 2 == 0 && munmap(words, kBytes) != 0) return 3;
  }
  return 0;
}
