// SPDX-License-Identifier: Apache-2.0
// Fork storms: trees of processes, copy-on-write seen from both sides, exec, pipes, wait statuses.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s\n", __LINE__, #what), fflush(stdout), _exit(1)))

enum { kBytes = 4 << 20 };
static unsigned char* area;

// A tree `depth` deep, three children each; returns the number of its processes.
static int tree(int depth) {
  int total = 1;
  pid_t children[3];
  if (depth == 0) return 1;
  for (int i = 0; i < 3; ++i) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] == 0) _exit(tree(depth - 1));
  }
  for (int i = 0; i < 3; ++i) {
    int status;
    CHECK(waitpid(children[i], &status, 0) == children[i]);
    CHECK(WIFEXITED(status));
    total += WEXITSTATUS(status);
  }
  return total;
}

static void copyOnWrite(int round) {
  pid_t child;
  memset(area, round, kBytes);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (int i = 0; i < kBytes; i += 512) CHECK(area[i] == (unsigned char)round);
    memset(area, 0xee, kBytes);
    for (int i = 0; i < kBytes; i += 512) CHECK(area[i] == 0xee);
    _exit(0);
  }
  for (int i = 0; i < kBytes; i += 4096) area[i] = (unsigned char)(round + 1);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  for (int i = 0; i < kBytes; ++i) CHECK(area[i] == (unsigned char)(i % 4096 == 0 ? round + 1 : round));
}

static void executed(int round) {
  int ends[2];
  char text[32], wanted[32];
  CHECK(pipe(ends) == 0);
  snprintf(wanted, sizeof wanted, "%d", round);
  pid_t child = round % 2 ? vfork() : fork();
  if (child == 0) {
    dup2(ends[1], 1);
    execl("/bin/sh", "sh", "-c", "echo $0", wanted, (char*)NULL);
    _exit(127);
  }
  close(ends[1]);
  ssize_t size = read(ends[0], text, sizeof text - 1);
  close(ends[0]);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(size > 1 && memcmp(text, wanted, (size_t)size - 1) == 0);
}

static void killed(int number) {
  int status;
  pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  CHECK(kill(child, number) == 0);
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == number);
}

int main(void) {
  area = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(area != MAP_FAILED);
  for (int i = 0; i < 3; ++i) CHECK(tree(4) == 121);
  for (int i = 1; i < 30; ++i) copyOnWrite(i);
  for (int i = 0; i < 60; ++i) executed(i);
  for (int i = 1; i <= 15; ++i) killed(i);
  puts("forks ok");
  return 0;
}
