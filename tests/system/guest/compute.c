// SPDX-License-Identifier: Apache-2.0
// Integer, floating-point and string work whose results do not depend on how it was compiled.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int calls;

__attribute__((noinline)) uint64_t checksum(const void* data, size_t size) {
  const unsigned char* bytes = data;
  uint64_t hash = 0xcbf29ce484222325u;
  ++calls;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

static uint64_t state = 88172645463325252u;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int compare(const void* a, const void* b) {
  uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}

static void sorting(void) {
  enum { count = 100000 };
  uint64_t* values = malloc(count * sizeof *values);
  int sorted = 1;
  for (int i = 0; i < count; ++i) values[i] = next();
  qsort(values, count, sizeof *values, compare);
  for (int i = 1; i < count; ++i) sorted &= values[i - 1] <= values[i];
  printf("sorted %d %016llx\n", sorted, (unsigned long long)checksum(values, count * sizeof *values));
  free(values);
}

static void primes(void) {
  enum { limit = 1000000 };
  char* composite = calloc(limit + 1, 1);
  int count = 0;
  for (int i = 2; i <= limit; ++i) {
    if (composite[i]) continue;
    ++count;
    for (long k = (long)i * i; k <= limit; k += i) composite[k] = 1;
  }
  printf("primes %d\n", count);
  free(composite);
}

// IEEE operations alone: no library function may differ in the last place.
static void matrix(void) {
  enum { n = 96 };
  static double a[n][n], b[n][n], c[n][n];
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      a[i][k] = (double)(next() >> 11) / 9007199254740992.0 - 0.5;
      b[i][k] = sqrt((double)(i + 1) / (k + 1));
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      for (int j = 0; j < n; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  printf("matrix %016llx %.17g\n", (unsigned long long)checksum(c, sizeof c), c[3][5]);
}

static void wide(void) {
  unsigned __int128 product = 1;
  uint64_t rest = 0;
  for (int i = 0; i < 200000; ++i) {
    product = product * (next() | 1) + i;
    rest ^= (uint64_t)(product >> 64) / ((next() >> 40) | 1) + (uint64_t)product % ((next() >> 50) | 1);
    rest = rest << (i & 63) | rest >> (-i & 63);
  }
  printf("wide %016llx %016llx\n", (unsigned long long)rest, (unsigned long long)(product >> 64));
}

static void strings(void) {
  char text[4096];
  uint64_t sum = 0;
  for (int i = 0; i < 2000; ++i) {
    int length = snprintf(text, sizeof text, "%d %x %.3f %s", i, i * 7919, i / 8.0, "the quick brown fox");
    sum += checksum(text, (size_t)length) ^ (uint64_t)strtod(strchr(text, '.') - 1, NULL);
    memmove(text + 3, text, (size_t)length + 1);
    sum += strlen(text) + (size_t)(strstr(text, "fox") - text) + (size_t)atoi(text);
  }
  printf("strings %016llx\n", (unsigned long long)sum);
}

int main(void) {
  sorting();
  primes();
  matrix();
  wide();
  strings();
  return 0;
}
