// SPDX-License-Identifier: Apache-2.0
// Code that changes while it runs: rewritten in place, on the page that executes, through a second mapping, by another thread.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), exit(1)))

typedef int (*function)(void);

static void put(unsigned char* at, int value) {  // mov eax, value; ret
  at[0] = 0xb8;
  memcpy(at + 1, &value, 4);
  at[5] = 0xc3;
}

static void inPlace(void) {
  unsigned char* page = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  for (int i = 0; i < 20000; ++i) {
    unsigned char* at = page + i % 4090 + (i % 3) * 2;
    put(at, i);
    CHECK(((function)at)() == i);
  }
  // Across the page boundary, only the second page's byte changing.
  unsigned char* at = page + 4096 - 3;
  for (int i = 0; i < 2000; ++i) {
    put(at, 0);
    at[4] = (unsigned char)i;
    CHECK(((function)at)() == (int)((uint32_t)(i & 0xff) << 24));
  }
  munmap(page, 8192);
}

// The code stores into its own next instruction: mov byte [rip+N], V just before `mov al, imm`.
static void ahead(void) {
  unsigned char* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static const unsigned char code[] = {0x31, 0xc0,                    // xor eax, eax
                                       0x40, 0x88, 0x3d, 1, 0, 0, 0,  // mov [rip + 1], dil
                                       0xb0, 0x55,                    // mov al, 0x55: its immediate is overwritten
                                       0xc3};
  CHECK(page != MAP_FAILED);
  memcpy(page, code, sizeof code);
  for (int i = 0; i < 5000; ++i) CHECK(((int (*)(int))page)(i) == (i & 0xff));
  munmap(page, 4096);
}

static void secondMapping(void) {
  int file = memfd_create("code", 0);
  CHECK(file >= 0 && ftruncate(file, 4096) == 0);
  unsigned char* data = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  unsigned char* text = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
  CHECK(data != MAP_FAILED && text != MAP_FAILED);
  for (int i = 0; i < 10000; ++i) {
    put(data + 64, i);
    CHECK(((function)(text + 64))() == i);
  }
  // And by the kernel's hand, with write(2).
  for (int i = 0; i < 2000; ++i) {
    unsigned char code[6];
    put(code, -i);
    CHECK(pwrite(file, code, sizeof code, 64) == sizeof code);
    CHECK(((function)(text + 64))() == -i);
  }
  close(file);
}

static void remapped(void) {
  for (int i = 0; i < 500; ++i) {
    unsigned char* page = mmap((void*)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(page != MAP_FAILED);
    put(page, i);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    CHECK(((function)page)() == i);
    CHECK(munmap(page, 4096) == 0);
  }
}

static unsigned char* shared;
static volatile int stop;

static void* runner(void* unused) {
  int last = 0;
  while (!stop) {
    int value = ((function)shared)();
    if (value < last) return (void*)1;
    last = value;
  }
  return unused;
}

// Another thread rewrites an aligned immediate while this code runs: each call sees one of the values, in order.
static void crossModified(void) {
  pthread_t threads[2];
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  shared += 3;  // the immediate is aligned
  put(shared, 0);
  for (int i = 0; i < 2; ++i) CHECK(pthread_create(&threads[i], NULL, runner, NULL) == 0);
  for (int i = 1; i < 4000; ++i) {
    __atomic_store_n((int*)(shared + 1), i, __ATOMIC_SEQ_CST);
    if (i % 16 == 0) usleep(100);
  }
  stop = 1;
  for (int i = 0; i < 2; ++i) {
    void* result;
    pthread_join(threads[i], &result);
    CHECK(result == NULL);
  }
  CHECK(((function)shared)() == 3999);
}

int main(void) {
  inPlace();
  ahead();
  secondMapping();
  remapped();
  crossModified();
  puts("smc ok");
  return 0;
}
