// SPDX-License-Identifier: Apache-2.0
// A guest of the guest's own, by its /dev/kvm: 16-bit code that adds up numbers in registers and memory and tells each sum
// by a port. The program knows what the sums must be. It prints "sum N done" each time, and ends after ROUNDS of them:
//   guests_guest ROUNDS
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BYTES = 0x4000, CODE = 0x1000 };

static int must(int result, const char *what) {
  if (result >= 0) return result;
  printf("BROKEN %s: %s\n", what, strerror(errno));
  exit(1);
}

// ebx counts to 0x40000 in ecx's rounds; [0x2000] has the sum, with what a round adds.
static const uint8_t kCode[] = {
    0x66, 0x31, 0xc0,                    // xor eax, eax
    0x66, 0xb9, 0,    0,    4,    0,     // mov ecx, 0x40000
    0x66, 0x01, 0xc8,                    // add eax, ecx
    0x66, 0xd1, 0xc0,                    // rol eax, 1
    0x66, 0x01, 0x06, 0x00, 0x20,        // add [0x2000], eax
    0x66, 0x49,                          // dec ecx
    0x75, 0xf1,                          // jnz add
    0x66, 0xe7, 0x10,                    // out 0x10, eax
    0xeb, 0xe3,                          // jmp xor
};

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 1000000;
  setvbuf(stdout, NULL, _IOLBF, 0);
  int kvm = must(open("/dev/kvm", O_RDWR), "open /dev/kvm");
  int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct kvm_userspace_memory_region slot = {.memory_size = BYTES, .userspace_addr = (uintptr_t)memory};
  must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
  memcpy(memory + CODE, kCode, sizeof kCode);
  int cpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  int size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
  struct kvm_sregs sregs;
  must(ioctl(cpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = sregs.cs.selector = 0;
  must(ioctl(cpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = CODE, .rflags = 2};
  must(ioctl(cpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

  uint32_t sum = 0, total = 0;
  for (uint32_t n = 0x40000; n != 0; --n) {
    sum += n;
    sum = sum << 1 | sum >> 31;
    total += sum;
  }
  uint32_t wanted = 0;
  for (int n = 1; n <= rounds; ++n) {
    while (ioctl(cpu, KVM_RUN, 0) != 0) {
      if (errno != EINTR && errno != EAGAIN) must(-1, "KVM_RUN");
    }
    if (run->exit_reason != KVM_EXIT_IO) {
      printf("BROKEN the guest's guest: exit %u\n", run->exit_reason);
      return 1;
    }
    uint32_t said, there;
    memcpy(&said, (uint8_t *)run + run->io.data_offset, 4);
    memcpy(&there, memory + 0x2000, 4);
    wanted += total;
    if (said != sum || there != wanted) {
      printf("BROKEN sums: %#x and %#x, not %#x and %#x\n", said, there, sum, wanted);
      return 1;
    }
    printf("sum %d done\n", n);
  }
  printf("the guest's guest is done\n");
  return 0;
}
