// SPDX-License-Identifier: Apache-2.0
// What user code can do to its processor: faults, traps, flags, segment registers, code that changes, 32-bit code.
// Prints what it saw; on any processor, in any guest, the same.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int traps;
static volatile uint64_t trapSum;
static uint8_t* page;

static void leap(int number, siginfo_t* info, void* context) {
  asm volatile("pushf; andl $~0x40000, (%%rsp); popf" : : : "cc", "memory");
  greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
  printf("signal %d code %d trap %lld error %lld%s\n", number, info->si_code, r[REG_TRAPNO], r[REG_ERR] & 0x17,
         page && info->si_addr == page ? " at the page" : "");
  siglongjmp(back, 1);
}

static void count(int number, siginfo_t* info, void* context) {
  (void)number;
  (void)info;
  ++traps;
  trapSum += (uint64_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_RAX];
}

static void on(int number, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(number, &action, NULL);
}

#define TRY(...)               \
  if (!sigsetjmp(back, 1)) {   \
    __VA_ARGS__;               \
    puts("no signal");         \
  }

static void faults(void) {
  int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
  for (unsigned n = 0; n < 5; ++n) on(numbers[n], leap);
  TRY(asm volatile("ud2"));
  TRY(asm volatile("int3"));
  TRY(asm volatile("hlt"));
  TRY(asm volatile("int $0x42"));
  TRY(asm volatile("xor %%edx, %%edx; xor %%ecx, %%ecx; div %%ecx" : : : "eax", "ecx", "edx"));
  TRY(asm volatile("mov (%0), %%al" : : "r"(0x8000000000000000) : "eax"));
  TRY(asm volatile("in $0x80, %%al" : : : "eax"));
  page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  page[0] = 0xc3;
  TRY(((void (*)(void))page)());
  mprotect(page, 4096, PROT_READ);
  TRY(*(volatile uint8_t*)page = 1);
  munmap(page, 4096);
  TRY(*(volatile uint8_t*)page = 1);
  static int words[4];
  TRY(asm volatile("pushf; orl $0x40000, (%%rsp); popf; incl (%0); pushf; andl $~0x40000, (%%rsp); popf" : : "r"((char*)words + 1) : "cc", "memory"));
  asm volatile("pushf; andl $~0x40000, (%%rsp); popf" : : : "cc");
}

static void singleSteps(void) {
  on(SIGTRAP, count);
  asm volatile(
      "xor %%eax, %%eax\n pushf\n orl $0x100, (%%rsp)\n popf\n inc %%eax\n inc %%eax\n inc %%eax\n"
      "pushf\n andl $~0x100, (%%rsp)\n popf\n nop\n"
      :
      :
      : "eax", "cc", "memory");
  printf("steps %d, sum %lu\n", traps, (unsigned long)trapSum);
}

static void segments(void) {
  unsigned short ds = 0, es = 0, code = 0, stack = 0;
  asm volatile("mov %%cs, %0; mov %%ss, %1" : "=r"(code), "=r"(stack));
  printf("cs %x ss %x\n", code, stack);
  asm volatile("mov %0, %%ds" : : "r"(0x2b));
  syscall(SYS_getppid);
  asm volatile("mov %%ds, %0; mov %%es, %1" : "=r"(ds), "=r"(es));
  printf("ds %x es %x\n", ds, es);
  asm volatile("mov %0, %%ds" : : "r"(0));
  on(SIGSEGV, leap);
  TRY(asm volatile("mov %0, %%ds" : : "r"(0x1003)));
  uint64_t flags = 0;
  asm volatile("pushf; xorl $0x200000, (%%rsp); popf; pushf; pop %0; pushf; xorl $0x200000, (%%rsp); popf" : "=r"(flags) : : "cc");
  printf("flags %lx\n", (unsigned long)flags & 0x3c7700);
  syscall(SYS_arch_prctl, 0x1001, &flags - 1);  // ARCH_SET_GS
  uint64_t there = 0;
  asm volatile("mov %%gs:8, %0" : "=r"(there));
  printf("gs %d\n", there == flags);
  asm volatile("pushf; orl $0x4000, (%%rsp); popf; mov $110, %%eax; syscall; pushf; pop %0; pushf; andl $~0x4000, (%%rsp); popf"
               : "=r"(flags) : : "rax", "rcx", "r11", "cc", "memory");
  printf("nested %lx\n", (unsigned long)flags & 0x4000);
  syscall(SYS_arch_prctl, 0x1001, 0);
}

// MOV EAX, n; RET, changed and called again and again; then by another mapping of the same page.
static void changingCode(void) {
  int file = memfd_create("code", 0);
  if (ftruncate(file, 8192) != 0) return;
  uint8_t* run = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, file, 0);
  uint8_t* alias = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  uint64_t sum = 0;
  for (uint32_t n = 0; n < 300; ++n) {
    uint8_t* to = n % 3 == 0 ? alias : run;
    to[0] = 0xb8;
    memcpy(to + 1, &n, 4);
    to[5] = 0xc3;
    sum = 3 * sum + ((uint32_t(*)(void))run)();
  }
  // An instruction on both pages, whose end changes.
  for (uint32_t n = 0; n < 50; ++n) {
    alias[4094] = 0xb8;
    memcpy(alias + 4095, &n, 4);
    alias[4099] = 0xc3;
    sum = 3 * sum + ((uint32_t(*)(void))(run + 4094))();
  }
  printf("code %lx\n", (unsigned long)sum);
}

static void processors(void) {
  uint32_t a = 0, b, c = 0, d;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  uint64_t first = __builtin_ia32_rdtsc(), last = first, worse = 0;
  for (int n = 0; n < 1000; ++n) {
    uint64_t now = __builtin_ia32_rdtsc();
    worse += now < last;
    last = now;
  }
  printf("cpuid %d, time went back %lu\n", a >= 7, (unsigned long)worse);
}

// A page of its own, with a CPUID in it, so that it may not run as it is; and another that may. Each calls the other.
asm(".pushsection .mixed, \"ax\"\n"
    ".balign 4096\n"
    "mixedLeaf:\n"  // RAX = RAX * 3 + RDI + carry; keeps the carry; XMM0 += XMM1
    "  pushfq\n lea (%rax,%rax,2), %rax\n popfq\n adc %rdi, %rax\n stc\n paddq %xmm1, %xmm0\n ret\n"
    "mixedLoop:\n"  // RSI times plainLeaf
    "  call plainLeaf\n dec %rsi\n jnz mixedLoop\n ret\n"
    "mixedCpuid:\n"
    "  push %rbx\n xor %eax, %eax\n xor %ecx, %ecx\n cpuid\n pop %rbx\n ret\n"
    "mixedGs:\n"
    "  mov %gs:8, %rax\n ret\n"
    "mixedFlags:\n"
    "  pushfq\n pop %rax\n ret\n"
    "mixedX87:\n"
    "  fld1\n fadds (%rdi)\n fstps (%rdi)\n ret\n"
    "mixedJump:\n"
    "  jmp *%rdi\n"
    ".balign 4096\n"
    "plainLeaf:\n"
    "  lea (%rax,%rax,4), %rax\n add %rsi, %rax\n ret\n"
    "plainLoop:\n"  // RSI times mixedLeaf
    "  call mixedLeaf\n sbb $0, %rax\n dec %rsi\n jnz plainLoop\n ret\n"
    ".balign 4096\n"
    ".popsection\n");

static uint64_t call(const char* what, void* function, uint64_t a, uint64_t di, uint64_t si) {
  register uint64_t rsi asm("rsi") = si;
  register uint64_t rdi asm("rdi") = di;
  uint64_t rax = a, flags;
  asm volatile("sub $128, %%rsp\n clc\n call *%5\n pushf\n pop %1\n add $128, %%rsp"
               : "+a"(rax), "=&r"(flags), "+r"(rdi), "+r"(rsi)
               : "0"(rax), "r"(function)
               : "rcx", "rdx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "cc", "memory");
  if (what) printf("%s %lx flags %lx\n", what, (unsigned long)rax, (unsigned long)flags & 0xcd5);
  return rax;
}

extern char mixedLeaf[], mixedLoop[], mixedCpuid[], mixedGs[], mixedFlags[], mixedX87[], mixedJump[], plainLeaf[], plainLoop[];

static void crossings(void) {
  call("plain loop", plainLoop, 1, 7, 30000);
  call("mixed loop", mixedLoop, 1, 7, 30000);
  uint64_t sum = 0;
  for (uint64_t n = 0; n < 2000; ++n) {
    sum = call(NULL, mixedLeaf, sum, n, 3);
    sum = call(NULL, mixedJump, sum, (uint64_t)plainLeaf, n);
    if (n % 100 == 0) call(NULL, mixedCpuid, 0, 0, 0);
  }
  uint64_t there[2] = {1, 2};
  for (int n = 0; n < 3; ++n) {
    syscall(SYS_arch_prctl, 0x1001, there);
    there[1] = 5 + n;
    sum = 3 * sum + call(NULL, mixedGs, 0, 0, 0);
  }
  syscall(SYS_arch_prctl, 0x1001, 0);
  uint64_t flags = 0;
  asm volatile("pushf; orl $0x200000, (%%rsp); popf" : : : "cc", "memory");
  flags = call(NULL, mixedFlags, 0, 0, 0) & 0x240000;
  asm volatile("pushf; andl $~0x200000, (%%rsp); popf" : : : "cc", "memory");
  flags = flags << 1 | (call(NULL, mixedFlags, 0, 0, 0) & 0x240000);
  float value = 2;
  struct { uint16_t control, r0, status, r1, tag, r2; uint32_t ip, opcode, dp, rest; } environment;
  for (int n = 0; n < 10; ++n) call(NULL, mixedX87, 0, (uint64_t)&value, 0);
  asm volatile("fnstenv %0; fldenv %0" : "+m"(environment));
  printf("crossings %lx flags %lx x87 %g %x\n", (unsigned long)sum, (unsigned long)flags, (double)value, environment.status);
}

static void children(void) {
  volatile int* shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  static volatile int own = 1;
  for (int n = 0; n < 20; ++n) {
    pid_t child = fork();
    if (child == 0) {
      own += n;
      *shared += own;
      _exit(n);
    }
    int status = 0;
    waitpid(child, &status, 0);
    *shared += 100 * (WEXITSTATUS(status) == n) + 1000 * own;
  }
  printf("children %d\n", *shared);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int round = 0; round < 3; ++round) {
    traps = 0;
    trapSum = 0;
    faults();
    singleSteps();
    segments();
    changingCode();
    processors();
    crossings();
    children();
  }
  return 0;
}
