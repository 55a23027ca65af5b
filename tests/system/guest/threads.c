// SPDX-License-Identifier: Apache-2.0
// Threads: atomic counts, mutexes and conditions (futexes), a lock-free queue's memory order, barriers, many short threads.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), exit(1)))

enum { kThreads = 6, kRounds = 60000 };

static atomic_long counter;
static long plain, underMutex;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_spinlock_t spin;
static _Alignas(16) unsigned __int128 wide;

static void* counting(void* unused) {
  for (int i = 0; i < kRounds; ++i) {
    atomic_fetch_add(&counter, 1);
    if (i % 8 == 0) {
      pthread_mutex_lock(&mutex);
      ++underMutex;
      pthread_mutex_unlock(&mutex);
      pthread_spin_lock(&spin);
      ++plain;
      pthread_spin_unlock(&spin);
    }
    if (i % 16 == 0) {  // lock cmpxchg16b
      uint64_t low = (uint64_t)wide, high = (uint64_t)(wide >> 64);
      unsigned char done;
      do {
        uint64_t newLow = low + 1, newHigh = high + 2;
        __asm__ volatile("lock cmpxchg16b %1; sete %0"
                         : "=q"(done), "+m"(wide), "+a"(low), "+d"(high)
                         : "b"(newLow), "c"(newHigh)
                         : "memory", "cc");
      } while (!done);
    }
  }
  return unused;
}

// Turns: each thread waits for its number.
static int turn;
static void* turns(void* argument) {
  int me = (int)(intptr_t)argument;
  for (int i = 0; i < 400; ++i) {
    pthread_mutex_lock(&mutex);
    while (turn % kThreads != me) pthread_cond_wait(&condition, &mutex);
    ++turn;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

// One writer, one reader, plain x86 order: a stamp seen means the data before it is seen.
static struct {
  volatile long data[16];
  volatile long stamp;
} box;
static void* writer(void* unused) {
  for (long i = 1; i <= 300000; ++i) {
    box.data[i % 16] = i;
    __asm__ volatile("" ::: "memory");
    box.stamp = i;
  }
  return unused;
}
static void* reader(void* unused) {
  long seen = 0;
  while (seen < 300000) {
    seen = box.stamp;
    __asm__ volatile("" ::: "memory");
    if (seen > 0) CHECK(box.data[seen % 16] >= seen);
  }
  return unused;
}

// Store buffers may make both read 0 without a fence, never with one.
static volatile int x, y, readX, readY;
static void* fenced(void* argument) {
  for (int i = 0; i < 1500; ++i) {
    pthread_barrier_wait(&barrier);
    if (argument) {
      x = 1;
      __asm__ volatile("mfence" ::: "memory");
      readY = y;
    } else {
      int one = 1;
      __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(y)::"memory");
      readX = x;
    }
    pthread_barrier_wait(&barrier);
    if (argument) {
      CHECK(readX == 1 || readY == 1);
      x = y = 0;
    }
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}

static void* nothing(void* argument) {
  return argument;
}

static void all(int count, void* (*body)(void*)) {
  pthread_t threads[kThreads];
  for (int i = 0; i < count; ++i) CHECK(pthread_create(&threads[i], NULL, body, (void*)(intptr_t)i) == 0);
  for (int i = 0; i < count; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(void) {
  pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
  all(kThreads, counting);
  CHECK(counter == (long)kThreads * kRounds);
  CHECK(underMutex == (long)kThreads * kRounds / 8 && plain == underMutex);
  CHECK((uint64_t)wide == (uint64_t)kThreads * kRounds / 16 && (uint64_t)(wide >> 64) == 2 * (uint64_t)wide);
  all(kThreads, turns);
  CHECK(turn == kThreads * 400);
  pthread_t two[2];
  CHECK(pthread_create(&two[0], NULL, reader, NULL) == 0 && pthread_create(&two[1], NULL, writer, NULL) == 0);
  for (int i = 0; i < 2; ++i) pthread_join(two[i], NULL);
  pthread_barrier_init(&barrier, NULL, 2);
  all(2, fenced);
  for (int i = 0; i < 2000; ++i) {
    pthread_t thread;
    void* result;
    CHECK(pthread_create(&thread, NULL, nothing, (void*)(intptr_t)i) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == (void*)(intptr_t)i);
  }
  puts("threads ok");
  return 0;
}
