// SPDX-License-Identifier: Apache-2.0
// A program that computes and looks at the time stamp counter all the time: it never goes back, and it keeps its rate by
// the kernel's clock, whatever happens to the machine. A line each half second, with its rate.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

static uint64_t tscp(void) {
  uint32_t low, high, aux;
  __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
  return (uint64_t)high << 32 | low;
}

// Nanoseconds by a system call: the kernel's own reading.
static uint64_t clock_now(void) {
  struct timespec t;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct moment {
  uint64_t tsc, clock, apart;
};

// Both at once, as nearly as some tries can: the process may be interrupted between the two.
static struct moment moment(void) {
  struct moment best = {0, 0, ~0ull};
  for (int n = 0; n < 200; ++n) {
    uint64_t before = tsc(), clock = clock_now(), after = tscp();
    if (after < before) printf("WRONG: %llu after %llu\n", (unsigned long long)after, (unsigned long long)before), exit(1);
    if (after - before < best.apart) best = (struct moment){before + (after - before) / 2, clock, after - before};
  }
  return best;
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  uint64_t latest = tsc(), sum = 0, reads = 0;
  struct moment start = moment(), last = start;
  double rate = 0;  // ticks a nanosecond
  for (unsigned round = 1;; ++round) {
    do {
      for (int n = 0; n < 200000; ++n) {
        sum = sum * 6364136223846793005u + 1442695040888963407u;
        if (n % 16 == 0) {
          uint64_t now = n % 32 == 0 ? tsc() : tscp();
          if (now < latest) {
            printf("WRONG: tsc %llu after %llu\n", (unsigned long long)now, (unsigned long long)latest);
            return 1;
          }
          latest = now;
          ++reads;
        }
      }
    } while (clock_now() < last.clock + 500000000);
    struct moment now = moment();
    double ticks = (double)(now.tsc - last.tsc), time = (double)(now.clock - last.clock);
    // What two moments are not exact by, and 1 %.
    double slack = (double)(now.apart + last.apart) + 0.01 * ticks;
    if (rate == 0) rate = ticks / time;
    double wrong = ticks - rate * time;
    if (wrong > slack || wrong < -slack) {
      printf("WRONG: %.0f ticks in %.0f ns, %.4f a ns before\n", ticks, time, rate);
      return 1;
    }
    printf("tsc round %u agrees, %.0f kHz, %llu reads, %llx\n", round, 1e6 * ticks / time, (unsigned long long)reads,
           (unsigned long long)(sum >> 60));
    last = now;
  }
}
