// SPDX-License-Identifier: Apache-2.0
// A 32-bit process without libraries: system calls by INT 80 and by the vDSO's entry, a thread-local segment, signals
// on an alternate stack, forks, self-modifying code, 32-bit arithmetic, x87 and SSE, checked by itself. Compiled with
// -m32 -nostdlib -static -ffreestanding -fno-stack-protector -fno-pie -msse2; exit status 0, or the number of the
// check's line.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

static long call(long number, long a, long b, long c, long d, long e) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
  return result;
}
enum { sysExit = 1, sysFork = 2, sysWrite = 4, sysWaitpid = 7, sysGetpid = 20, sysKill = 37, sysMmap2 = 192 };
enum { sysSigaction = 174, sysSigaltstack = 186, sysSetThreadArea = 243, sysSchedYield = 158, sysMunmap = 91 };

#define CHECK(what) ((what) ? (void)0 : (void)call(sysExit, __LINE__ > 255 ? 255 : __LINE__, 0, 0, 0, 0))

static void* entry;  // the vDSO's, from the auxiliary vector

static long fastCall(long number, long a) {
  long result;
  __asm__ volatile("call *%1" : "=a"(result) : "m"(entry), "a"(number), "b"(a), "c"(0), "d"(0) : "memory");
  return result;
}

static void calls(void) {
  CHECK(entry != 0);
  long pid = call(sysGetpid, 0, 0, 0, 0, 0);
  for (int i = 0; i < 30000; ++i) CHECK(fastCall(sysGetpid, 0) == pid);
  CHECK(fastCall(9999, 0) == -38);  // ENOSYS
}

static void threadLocal(void) {
  struct {
    u32 entryNumber, base, limit, flags;
  } area = {~0u, 0, 0xfffff, 0x51};  // 32 bits, limit in pages, usable
  static u32 block[4] = {0x11223344, 5, 6, 7};
  area.base = (u32)block;
  CHECK(call(sysSetThreadArea, (long)&area, 0, 0, 0, 0) == 0);
  u32 word, sum = 0;
  __asm__ volatile("mov %0, %%gs" : : "r"(area.entryNumber * 8 + 3));
  for (int i = 0; i < 2000; ++i) {
    __asm__ volatile("mov %%gs:0, %0" : "=r"(word));
    CHECK(word == 0x11223344);
    __asm__ volatile("addl $1, %%gs:4; mov %%gs:4, %0" : "=r"(sum) : : "memory");
    CHECK(sum == 6u + (u32)i && block[1] == sum);
    if (i % 100 == 0) call(sysSchedYield, 0, 0, 0, 0, 0);
  }
}

static u8 signalStack[16384];
static volatile int signals;
static volatile u32 stackInHandler;
static void onSignal(int number) {
  u32 here;
  stackInHandler = (u32)&here;
  if (number == 10) ++signals;
}
__asm__("restore: mov $173, %eax; int $0x80");  // rt_sigreturn
void restore(void);

static void signalsWork(void) {
  struct {
    void* stack;
    int flags;
    u32 size;
  } alternate = {signalStack, 0, sizeof signalStack};
  struct {
    void (*handler)(int);
    u32 flags;
    void (*restorer)(void);
    u64 mask;
  } action = {onSignal, 0x08000000 | 0x04000000 | 4, restore, 0};  // on that stack, with a restorer and a full frame
  CHECK(call(sysSigaltstack, (long)&alternate, 0, 0, 0, 0) == 0);
  CHECK(call(sysSigaction, 10, (long)&action, 0, 8, 0) == 0);
  long pid = call(sysGetpid, 0, 0, 0, 0, 0);
  for (int i = 1; i <= 500; ++i) {
    double kept = i * 1.25, after;
    __asm__ volatile("movsd %1, %%xmm7; int $0x80; movsd %%xmm7, %0"
                     : "=m"(after)
                     : "m"(kept), "a"(sysKill), "b"(pid), "c"(10)
                     : "memory", "xmm7");
    CHECK(signals == i && after == kept);
    CHECK(stackInHandler >= (u32)signalStack && stackInHandler < (u32)signalStack + sizeof signalStack);
  }
}

static void forks(void) {
  for (int i = 0; i < 50; ++i) {
    long pid = call(sysFork, 0, 0, 0, 0, 0);
    if (pid == 0) call(sysExit, i & 63, 0, 0, 0, 0);
    int status = -1;
    CHECK(call(sysWaitpid, pid, (long)&status, 0, 0, 0) == pid && status == (i & 63) << 8);
  }
}

static void changingCode(void) {
  u8* page = (u8*)call(sysMmap2, 0, 4096, 7, 0x22, -1);
  CHECK((u32)page < 0xfffff000u);
  for (u32 i = 0; i < 300; ++i) {
    page[0] = 0xb8;  // mov eax, i
    *(volatile u32*)(page + 1) = i * 77;
    page[5] = 0xc3;
    CHECK(((u32(*)(void))page)() == i * 77);
  }
  CHECK(call(sysMunmap, (long)page, 4096, 0, 0, 0) == 0);
}

static u32 seed = 1;
static u32 next(void) {
  return seed = seed * 1664525 + 1013904223;
}

/// Instructions that only 32-bit code has, and others against plain C.
static void arithmetic(void) {
  for (int i = 0; i < 20000; ++i) {
    u32 a = next(), b = next() | 1, high = next() % b, quotient, remainder, low = a;
    __asm__("divl %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(b) : "cc");
    u64 back = (u64)quotient * b + remainder;
    CHECK(remainder < b && (u32)back == low && (u32)(back >> 32) == high);
    u32 registers[8];
    __asm__ volatile("pusha; mov %%esp, %%ecx; mov %0, %%eax; add $1, %%eax; popa; nop" : : "r"(a) : "cc", "memory");
    __asm__ volatile("push %1; inc %1; dec %1; pop %0" : "=r"(registers[0]) : "r"(a) : "cc");
    CHECK(registers[0] == a);
    u8 digit = (u8)(a % 10), other = (u8)(b % 10), tens;
    u32 ax = (u32)digit + other;
    __asm__("aaa" : "+a"(ax) : : "cc");
    tens = (u8)(ax >> 8);
    CHECK(tens * 10 + (ax & 15) == (u32)digit + other);
    double root, square = (double)(a >> 4);
    __asm__("fldl %1; fsqrt; fmul %%st(0), %%st(0); fstpl %0" : "=m"(root) : "m"(square));
    double error = root > square ? root - square : square - root;
    CHECK(error <= square * 1e-15);
  }
}

__asm__(
    ".globl _start\n"
    "_start: mov %esp, %eax\n"
    "and $-16, %esp\n"
    "sub $12, %esp\n"
    "push %eax\n"
    "call start\n");
void start(u32* stack) {
  u32* p = stack + 1 + stack[0] + 1;
  while (*p++ != 0) {
  }
  for (; p[0] != 0; p += 2) {
    if (p[0] == 32) entry = (void*)p[1];  // AT_SYSINFO
  }
  calls();
  threadLocal();
  signalsWork();
  forks();
  changingCode();
  arithmetic();
  static const char said[] = "32-bit code works\n";
  call(sysWrite, 1, (long)said, sizeof said - 1, 0, 0);
  call(sysExit, 0, 0, 0, 0, 0);
}
