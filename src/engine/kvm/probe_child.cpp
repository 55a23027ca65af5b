// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/probe_child.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "engine/kvm/probe_guest.h"

extern "C" const std::uint8_t lodgeKvmProbeBegin[], lodgeKvmProbeEnd[];
extern "C" const std::uint32_t lodgeKvmProbeHandlers[3];

namespace lodge::kvm {

namespace {

constexpr std::uint64_t kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80, kNoCache = 0x18;

void put64(std::uint8_t* memory, std::uint64_t address, std::uint64_t value) {
  storeLe(memory + address, value);
}

/// SDM volume 3, figure 6-8: a 64-bit interrupt gate.
void putGate(std::uint8_t* memory, unsigned vector, std::uint32_t offset, unsigned privilege) {
  std::uint64_t handler = PROBE_CODE + offset;
  std::uint64_t low = (handler & 0xffff) | std::uint64_t{PROBE_KERNEL_CS} << 16 | (0x8e00ull | privilege << 13) << 32 |
                      (handler & 0xffff'0000) << 32;
  put64(memory, PROBE_IDT + vector * 16, low);
  put64(memory, PROBE_IDT + vector * 16 + 8, handler >> 32);
}

void fillMemory(std::uint8_t* memory) {
  put64(memory, PROBE_PML4, PROBE_PDPT | kPresent | kWritable | kUser);
  put64(memory, PROBE_PDPT, PROBE_PD | kPresent | kWritable | kUser);
  put64(memory, PROBE_PD, 0 | kPresent | kWritable | kUser | kLarge);
  put64(memory, PROBE_PD + 8, std::uint64_t{PROBE_MMIO_GPA} | kPresent | kWritable | kLarge | kNoCache);
  put64(memory, PROBE_GDT + PROBE_KERNEL_CS, 0x00af'9b00'0000'ffff);
  put64(memory, PROBE_GDT + PROBE_KERNEL_SS, 0x00cf'9300'0000'ffff);
  put64(memory, PROBE_GDT + (PROBE_USER_SS & ~7), 0x00cf'f300'0000'ffff);
  put64(memory, PROBE_GDT + (PROBE_USER_CS & ~7), 0x00af'fb00'0000'ffff);
  put64(memory, PROBE_GDT + PROBE_TR, 0x0000'8b00'0000'0067 | std::uint64_t{PROBE_TSS} << 16);
  put64(memory, PROBE_TSS + 4, PROBE_STACK);  // RSP0
  putGate(memory, 6, lodgeKvmProbeHandlers[0], 0);
  putGate(memory, 14, lodgeKvmProbeHandlers[1], 0);
  putGate(memory, 0x80, lodgeKvmProbeHandlers[2], 3);
  std::memcpy(memory + PROBE_CODE, lodgeKvmProbeBegin, static_cast<std::size_t>(lodgeKvmProbeEnd - lodgeKvmProbeBegin));
}

kvm_segment segment(unsigned selector, unsigned type, bool code) {
  kvm_segment s{};
  s.selector = static_cast<std::uint16_t>(selector);
  s.limit = 0xffff'ffff;
  s.type = static_cast<std::uint8_t>(type);
  s.present = s.s = s.g = 1;
  s.l = code;
  s.db = !code;
  return s;
}

/// Long mode, ring 0, interrupts off.
void fillRegisters(kvm_sregs& sregs) {
  sregs.cs = segment(PROBE_KERNEL_CS, 11, true);
  sregs.ss = sregs.ds = sregs.es = sregs.fs = sregs.gs = segment(PROBE_KERNEL_SS, 3, false);
  sregs.tr = kvm_segment{};
  sregs.tr.selector = PROBE_TR;
  sregs.tr.base = PROBE_TSS;
  sregs.tr.limit = 0x67;
  sregs.tr.type = 11;
  sregs.tr.present = 1;
  sregs.gdt = {PROBE_GDT, PROBE_TR + 15, {}};
  sregs.idt = {PROBE_IDT, 0xfff, {}};
  sregs.cr0 = 0x8005'0033;  // PG, AM, WP, NE, ET, MP, PE
  sregs.cr3 = PROBE_PML4;
  sregs.cr4 = 0x620;   // PAE, OSFXSR, OSXMMEXCPT
  sregs.efer = 0xd01;  // NXE, LMA, LME, SCE
}

// struct kvm_cpuid2 is two 32-bit numbers and entries. Its declaration says so in C only: in C++ the empty structure
// before its flexible array has a size, and the numbers of the two ioctls, which hold the structure's size, come out
// wrong.
constexpr std::size_t kCpuidHeader = 8;
constexpr unsigned kMaxCpuidEntries = 256;
constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, kCpuidHeader);
constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, kCpuidHeader);

std::int64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

class Child {
 public:
  Child(int kvm, ProbeReport& report) : kvm_(kvm), report_(report) {}

  void run() {
    if (setUp()) loop();
  }

 private:
  bool check(SetupStep step, bool good) {
    report_.setup = step;
    if (!good) report_.error = errno != 0 ? errno : EIO;
    return good;
  }

  bool setUp() {
    vm_ = ::ioctl(kvm_, KVM_CREATE_VM, 0);
    if (!check(SetupStep::createVm, vm_ >= 0)) return false;
    void* memory = ::mmap(nullptr, PROBE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    kvm_userspace_memory_region region{};
    region.memory_size = PROBE_MEMORY;
    region.userspace_addr = reinterpret_cast<std::uint64_t>(memory);
    bool good = memory != MAP_FAILED && ::ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region) == 0;
    if (!check(SetupStep::memory, good)) return false;
    fillMemory(static_cast<std::uint8_t*>(memory));
    vcpu_ = ::ioctl(vm_, KVM_CREATE_VCPU, 0);
    if (!check(SetupStep::createVcpu, vcpu_ >= 0)) return false;
    int size = ::ioctl(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0);
    void* run = size < static_cast<int>(sizeof(kvm_run))
                    ? MAP_FAILED
                    : ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_, 0);
    if (!check(SetupStep::mapRun, run != MAP_FAILED)) return false;
    run_ = static_cast<kvm_run*>(run);
    return setCpuid() && setRegisters();
  }

  bool setCpuid() {
    alignas(8) std::uint8_t buffer[kCpuidHeader + kMaxCpuidEntries * sizeof(kvm_cpuid_entry2)] = {};
    storeLe(buffer, kMaxCpuidEntries);
    bool good = ::ioctl(kvm_, kGetSupportedCpuid, buffer) == 0 && ::ioctl(vcpu_, kSetCpuid2, buffer) == 0;
    return check(SetupStep::cpuid, good);
  }

  bool setRegisters() {
    kvm_sregs sregs{};
    bool good = ::ioctl(vcpu_, KVM_GET_SREGS, &sregs) == 0;
    fillRegisters(sregs);
    kvm_regs regs{};
    regs.rip = PROBE_CODE;
    regs.rsp = PROBE_STACK;
    regs.rflags = 2;
    good = good && ::ioctl(vcpu_, KVM_SET_SREGS, &sregs) == 0 && ::ioctl(vcpu_, KVM_SET_REGS, &regs) == 0;
    return check(SetupStep::registers, good);
  }

  void loop() {
    for (;;) {
      int done = ::ioctl(vcpu_, KVM_RUN, 0);
      if (done != 0 && errno == EINTR) continue;
      if (!check(SetupStep::run, done == 0)) return;
      if (run_->exit_reason == KVM_EXIT_IO && run_->io.port == PROBE_PORT) {
        reported(*(reinterpret_cast<const std::uint8_t*>(run_) + run_->io.data_offset));
      } else if (run_->exit_reason == KVM_EXIT_MMIO) {
        storeLe<std::uint64_t>(run_->mmio.data, PROBE_MMIO_VALUE);
      } else {
        report_.exitReason = run_->exit_reason == KVM_EXIT_HLT ? 0 : run_->exit_reason;
        return;
      }
    }
  }

  void reported(unsigned step) {
    if (step == PROBE_STEP_LOOP_BEGIN) loopBegin_ = now();
    if (step == PROBE_STEP_LOOP_END) report_.loopNanoseconds = now() - loopBegin_;
    if (step == PROBE_STEP_FAILED) report_.lastGood = report_.step.load();
    report_.step = step;
  }

  int kvm_, vm_ = -1, vcpu_ = -1;
  ProbeReport& report_;
  kvm_run* run_ = nullptr;
  std::int64_t loopBegin_ = 0;
};

}  // namespace

void probeChild(int kvm, ProbeReport& report) {
  Child(kvm, report).run();
  ::_exit(0);
}

}  // namespace lodge::kvm
