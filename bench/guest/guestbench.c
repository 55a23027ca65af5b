// SPDX-License-Identifier: Apache-2.0
// One row a line: "ROW name seconds". The same static program runs on the host and as a guest's work, so that the ratio of
// two runs says what the engine costs on that kind of work. Each row stands for one thing that engines find hard.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t result;

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Bitwise CRC-32: register arithmetic in a tight loop.
static void crc(void) {
  static uint8_t data[1 << 20];
  uint32_t c = ~0u;
  for (int round = 0; round < 12; ++round) {
    for (size_t i = 0; i < sizeof data; ++i) {
      c ^= data[i];
      for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (0xedb88320u & -(c & 1u));
    }
  }
  result += c;
}

// Recursion: calls, returns, stack traffic.
__attribute__((noinline)) static int fibonacci(int n) {
  if (n < 2) return n;
  return fibonacci(n - 1) + fibonacci(n - 2);
}
static void fib(void) { result += (uint64_t)fibonacci(35); }

// Sorting through a comparison callback: indirect calls, unpredictable branches.
static int compareInts(const void* a, const void* b) {
  int x = *(const int*)a, y = *(const int*)b;
  return (x > y) - (x < y);
}
static void sorting(void) {
  const size_t n = 1000000;
  int* values = malloc(n * sizeof *values);
  uint32_t x = 1;
  for (size_t i = 0; i < n; ++i) values[i] = (int)((x = x * 1664525u + 1013904223u) >> 1);
  qsort(values, n, sizeof *values, compareInts);
  result += (uint64_t)values[n / 2];
  free(values);
}

// Double matrix product: vector code.
static void matmul(void) {
  const int n = 400;
  double* a = calloc((size_t)(n * n), sizeof *a);
  double* b = calloc((size_t)(n * n), sizeof *b);
  double* c = calloc((size_t)(n * n), sizeof *c);
  for (int i = 0; i < n * n; ++i) a[i] = b[i] = i;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      double f = a[i * n + k];
      for (int j = 0; j < n; ++j) c[i * n + j] += f * b[k * n + j];
    }
  }
  result += (uint64_t)c[n + 1];
  free(a);
  free(b);
  free(c);
}

// Pointer chase in random order: load latency.
struct link {
  struct link* next;
  long padding;
};
static void chase(void) {
  const uint32_t n = 1 << 18;
  struct link* links = malloc(n * sizeof *links);
  uint32_t* order = malloc(n * sizeof *order);
  uint32_t x = 7;
  for (uint32_t i = 0; i < n; ++i) order[i] = i;
  for (uint32_t i = n - 1; i > 0; --i) {
    x = x * 1664525u + 1013904223u;
    uint32_t j = (uint32_t)(((uint64_t)x * (i + 1)) >> 32), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  for (uint32_t i = 0; i < n; ++i) links[order[i]].next = &links[order[(i + 1) % n]];
  struct link* p = links;
  for (int i = 0; i < 4000000; ++i) p = p->next;
  result += (uintptr_t)p & 1;
  free(links);
  free(order);
}

// The C library's memcpy on 8 MiB.
static void copy(void) {
  const size_t n = 8 << 20;
  char* from = malloc(n);
  char* to = malloc(n);
  memset(from, 1, n);
  for (int i = 0; i < 100; ++i) {
    memcpy(to, from, n);
    from[i] = to[i + 1];
  }
  result += (uint64_t)to[77];
  free(from);
  free(to);
}

static void getppidLoop(void) {
  for (int i = 0; i < 300000; ++i) result += (uint64_t)syscall(SYS_getppid);
}

// Two processes and two pipes: context switches.
static void pingPong(void) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) exit(1);
  char byte = 0;
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 10000; ++i) {
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  for (int i = 0; i < 10000; ++i) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) exit(1);
  }
  waitpid(child, NULL, 0);
  for (int i = 0; i < 2; ++i) {
    close(there[i]);
    close(back[i]);
  }
}

static void pageFaults(void) {
  const size_t n = 16 << 20;
  for (int round = 0; round < 10; ++round) {
    char* area = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) exit(1);
    for (size_t i = 0; i < n; i += 4096) area[i] = 1;
    munmap(area, n);
  }
}

static void forks(void) {
  for (int i = 0; i < 500; ++i) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
  }
}

// 80 MB through a file on tmpfs: the kernel's copies.
static void files(void) {
  static char page[4096];
  const char* name = "/tmp/guestbench.tmp";
  int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);
  if (fd < 0) exit(1);
  for (int i = 0; i < 20000; ++i) {
    if (write(fd, page, sizeof page) != (ssize_t)sizeof page) exit(1);
  }
  lseek(fd, 0, SEEK_SET);
  for (int i = 0; i < 20000; ++i) {
    if (read(fd, page, sizeof page) != (ssize_t)sizeof page) exit(1);
  }
  close(fd);
  unlink(name);
}

static const struct row {
  const char* name;
  void (*body)(void);
} rows[] = {
    {"crc32", crc},   {"fib", fib},           {"qsort", sorting}, {"matmul", matmul},      {"chase", chase}, {"memcpy", copy},
    {"syscall", getppidLoop}, {"pipe", pingPong}, {"pgfault", pageFaults}, {"fork", forks},  {"file", files},
};

int main(int argc, char** argv) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    int wanted = argc < 2;
    for (int k = 1; k < argc; ++k) wanted |= strcmp(argv[k], rows[i].name) == 0;
    if (!wanted) continue;
    double start = seconds();
    rows[i].body();
    printf("ROW %s %.6f\n", rows[i].name, seconds() - start);
    fflush(stdout);
  }
  return 0;
}
