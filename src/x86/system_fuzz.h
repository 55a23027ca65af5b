// SPDX-License-Identifier: Apache-2.0
// One hostile guest from bytes: random memory (so random descriptor tables, TSS and page tables), random registers, and
// a sequence of calls of the system architecture. For the fuzz driver and a unit test with random bytes.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "x86/events.h"
#include "x86/test_machine.h"
#include "x86/tlb.h"

namespace lodge::x86 {

class SystemFuzzer {
 public:
  SystemFuzzer() {
    memory_ = std::move(*GuestMemory::create(kMemory));
    model_.vendor = CpuVendor::intel;
    model_.features = ~0ull;
    model_.xcr0Supported = 7;
    model_.gigabytePages = true;
    model_.linearAddressBits = 57;
    model_.cr4Supported = 0x77'1fff;
    model_.eferSupported = efer::sce | efer::lme | efer::nxe;
    model_.tscHz = 2'000'000'000;
    model_.specCtrlSupported = 1;
    cpu_->memory = memory_.get();
    cpu_->environment = &environment_;
    cpu_->model = &model_;
    cpu_->listener = &listener_;
  }

  void run(const std::uint8_t* data, std::size_t size) {
    data_ = data;
    left_ = size;
    start();
    for (unsigned i = 0; i < 200 && left_ != 0; ++i) {
      operation();
      if (cpu_->exception.valid) deliverException(*cpu_);
      check();
      if (cpu_->state.activity != Activity::running) {
        cpu_->events = event::init;
        handleEvents(*cpu_);
      }
    }
  }

 private:
  static constexpr std::uint64_t kMemory = 2_MiB;

  std::uint64_t take(unsigned size) {
    std::uint64_t value = 0;
    unsigned length = size < left_ ? size : static_cast<unsigned>(left_);
    std::memcpy(&value, data_, length);
    data_ += length;
    left_ -= length;
    return value;
  }
  // Addresses that mostly lie in the filled memory.
  std::uint64_t takeAddress() {
    std::uint64_t value = take(4);
    switch (value >> 29 & 7) {
      case 0:
        return value << 32 | take(4);
      case 1:
        return value & 0x1f'ffff;
      case 2:
        return 0xffff'8000'0000'0000 | (value & 0xffff);
      default:
        return value & 0xffff;
    }
  }
  std::uint16_t takeSelector() { return static_cast<std::uint16_t>(take(1) << 2 & 0x1fc) | (take(1) & 7); }

  void start() {
    CpuState& s = cpu_->state;
    cpu_->events = 0;
    resetCpu(*cpu_, false);
    environment_.accesses.clear();
    environment_.localApic.pendingVectors.clear();
    listener_ = {};
    fillMemory();
    std::uint8_t mode = static_cast<std::uint8_t>(take(1));
    model_.vendor = (mode & 0x80) != 0 ? CpuVendor::amd : CpuVendor::intel;
    s.gdtr = {takeAddress() & 0xffff, static_cast<std::uint32_t>(take(1) | 0x1f00) & 0xfff, 0};
    s.idtr = {takeAddress() & 0xffff, 0xfff, 0};
    s.tr = {takeAddress() & 0xffff, static_cast<std::uint32_t>(take(2)), 8, 0x8b};
    s.ldtr = {takeAddress() & 0xffff, 0xff, 0x10, 0x82};
    for (std::uint64_t& r : s.gpr) r = takeAddress();
    s.rip = take(2);
    s.star = take(8);
    s.sysenterCs = take(2);
    s.pkru = take(1);
    enterMode(mode & 7);
    s.rflags = (take(4) & 0x1c'7fd5 & ~flag::vm) | 2;
    if ((mode & 7) == 1) {
      s.rflags |= flag::vm;
    }
    s.cr4 |=
        take(4) & (cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pge | cr4::umip | cr4::smep | cr4::smap);
  }

  // Every 8 bytes of the low 64 KiB: a byte of the input, spread so that tables have some valid entries.
  void fillMemory() {
    std::uint64_t seed = take(8);
    std::byte* ram = memory_->deviceView();
    std::memset(ram, 0, 0x1'1000);
    for (std::uint64_t i = 0; i < 0x1'0000; i += 8) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      std::uint64_t value = seed ^ seed >> 29;
      switch (seed >> 60) {
        case 0:
          break;
        case 1:
        case 2:
        case 3:
          value = (value & 0xf000) | (seed >> 32 & 0x1e7) | 1;
          break;  // page table entry
        case 4:
        case 5:
          value = (value & 0xffff) | (seed >> 8 & 0xff) << 40 | 0x90ull << 40 | 0xcfull << 48;
          break;  // segment
        case 6:
          value = (seed >> 20 & 0x1fc) << 16 | (seed >> 30 & 0x7f) << 40 | 0x80ull << 40;
          break;  // gate
        default:
          value &= 0xffff;
          break;
      }
      std::memcpy(ram + i, &value, 8);
    }
    // And pieces of the input itself.
    for (unsigned i = 0; i < 8; ++i) {
      std::uint64_t at = take(2) & 0xfff8, value = take(8);
      std::memcpy(ram + at, &value, 8);
    }
  }

  void enterMode(unsigned mode) {
    CpuState& s = cpu_->state;
    unsigned cpl = mode == 0 ? 0 : mode == 1 ? 3 : static_cast<unsigned>(take(1) & 3);
    s.cr0 = mode == 0 ? cr0::et : cr0::pe | cr0::et;
    s.cr3 = take(2) & 0xf000;
    bool paging = (take(1) & 1) != 0;
    if (mode >= 3) {  // long mode
      s.efer = efer::lme | efer::lma | efer::sce | (paging ? efer::nxe : 0);
      s.cr4 = cr4::pae | (mode == 7 ? cr4::la57 : 0);
      s.cr0 |= cr0::pg;
    } else if (mode == 2 && paging) {
      s.cr0 |= cr0::pg;
      if ((take(1) & 1) != 0) s.cr4 |= cr4::pae;
    }
    if ((take(1) & 1) != 0) s.cr0 |= cr0::wp;
    auto shift = static_cast<std::uint16_t>(cpl << 5);
    for (SegmentRegister& r : s.segment) {
      auto selector = static_cast<std::uint16_t>((take(1) << 3) | cpl);
      r = {mode <= 1 ? std::uint64_t{selector} << 4 : 0, mode <= 1 ? 0xffff : 0xffff'ffff, selector,
           static_cast<std::uint16_t>((mode <= 1 ? 0x0093 : 0xc093) | shift)};
    }
    s.segment[cs].attributes = static_cast<std::uint16_t>((mode <= 1 ? 0x009b : mode >= 4 ? 0xa09b : 0xc09b) | shift);
    s.cpl = static_cast<std::uint8_t>(cpl);
  }

  void operation();
  void transferOperation(unsigned which);
  void registerOperation(unsigned which);
  void memoryOperation(unsigned which);

  [[noreturn]] void bad(const char* what) {
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
  }

  void check() {
    const CpuState& s = cpu_->state;
    if (cpu_->exception.valid) bad("an exception is left over");
    if ((s.rflags & 2) == 0 || (s.rflags & ~0x3f'7fd7ull) != 0) bad("RFLAGS");
    if (s.cpl > 3) bad("CPL");
    bool paging = (s.cr0 & cr0::pg) != 0;
    if (((s.efer & efer::lma) != 0) != (paging && (s.efer & efer::lme) != 0)) bad("EFER.LMA");
    if (paging && !cpu_->protectedMode()) bad("paging without protection");
    if (cpu_->longMode() && (s.cr4 & cr4::pae) == 0) bad("long mode without PAE");
    if (cpu_->virtual8086() && (cpu_->longMode() || s.cpl != 3)) bad("virtual-8086 mode");
    if (!cpu_->protectedMode() && s.cpl != 0) bad("CPL of real mode");
    if (cpu_->mode64() && s.segment[cs].big()) bad("CS.L and CS.D");
    checkTlb();
  }

  // Whatever the TLB offers must point into RAM.
  void checkTlb() {
    for (const TlbEntry& e : cpu_->tlb) {
      if (e.readTag == kEmptyTag && e.writeTag == kEmptyTag && e.fetchTag == kEmptyTag) continue;
      auto offset = static_cast<std::uint64_t>(e.host - memory_->cpuRw());
      if (offset >= kMemory || offset % kPageSize != 0) bad("TLB entry");
    }
  }

  std::unique_ptr<GuestMemory> memory_;
  CpuModel model_;
  FakeEnvironment environment_;
  FakeListener listener_;
  std::unique_ptr<Cpu> cpu_ = std::make_unique<Cpu>();
  const std::uint8_t* data_ = nullptr;
  std::size_t left_ = 0;
};

inline void SystemFuzzer::transferOperation(unsigned which) {
  Cpu& cpu = *cpu_;
  constexpr unsigned kSizes[] = {2, 4, 8, 4};
  unsigned size = kSizes[take(1) & 3];
  if (size == 8 && !cpu.mode64()) size = 4;
  std::uint64_t next = cpu.state.rip + 5;
  switch (which) {
    case 0:
      farJump(cpu, takeSelector(), takeAddress(), size, next);
      break;
    case 1:
      farCall(cpu, takeSelector(), takeAddress(), size, next);
      break;
    case 2:
      farReturn(cpu, size, static_cast<std::uint16_t>(take(1)));
      break;
    case 3:
      interruptReturn(cpu, size, next);
      break;
    case 4:
      softwareInterrupt(cpu, static_cast<std::uint8_t>(take(1)), next, SoftwareInterrupt::intN);
      break;
    case 5:
      softwareInterrupt(cpu, 3, next, SoftwareInterrupt::int3OrInto);
      break;
    case 6:
      syscallInstruction(cpu, next);
      break;
    case 7:
      sysretInstruction(cpu, size);
      break;
    case 8:
      sysenterInstruction(cpu);
      break;
    case 9:
      sysexitInstruction(cpu, size);
      break;
    case 10:
      deliverInterrupt(cpu, static_cast<std::uint8_t>(take(1)));
      break;
    case 11:
      raise(cpu, static_cast<Vector>(take(1) & 31), static_cast<std::uint32_t>(take(2)));
      break;
    case 12:
      afterInstruction(cpu, cpu.state.rflags, cpu.state.interruptShadow);
      break;
    default:
      beforeInstruction(cpu);
      break;
  }
}

inline void SystemFuzzer::registerOperation(unsigned which) {
  Cpu& cpu = *cpu_;
  std::uint64_t value = 0;
  std::uint32_t word = 0;
  bool ok = false;
  switch (which) {
    case 0:
      loadSegment(cpu, static_cast<Segment>((take(1) % 5 + 2) % 6), takeSelector());
      break;
    case 1:
      loadLdtr(cpu, takeSelector());
      break;
    case 2:
      loadTr(cpu, takeSelector());
      break;
    case 3:
      writeControl(cpu, static_cast<unsigned>(take(1) & 15), take(5));
      break;
    case 4:
      writeDebug(cpu, static_cast<unsigned>(take(1) & 7), take(4));
      break;
    case 5:
      writeMsr(cpu, static_cast<std::uint32_t>(0xc000'0080 + (take(1) & 0x8f)), takeAddress());
      break;
    case 6:
      writeMsr(cpu, static_cast<std::uint32_t>(take(2)), takeAddress());
      break;
    case 7:
      writeMsr(cpu, static_cast<std::uint32_t>(0x4b56'4d00 + take(1)), takeAddress());
      break;
    case 8:
      readMsr(cpu, static_cast<std::uint32_t>(take(4)), value);
      break;
    case 9:
      popFlags(cpu, take(4), (take(1) & 1) != 0 ? 2 : 4);
      break;
    case 10:
      setInterruptFlag(cpu, (take(1) & 1) != 0);
      break;
    case 11:
      checkIoPermission(cpu, static_cast<std::uint16_t>(take(2)), 4);
      break;
    case 12:
      invalidatePcid(cpu, take(1) & 7, take(2), takeAddress());
      break;
    case 13:
      loadAccessRights(cpu, takeSelector(), ok, word);
      break;
    case 14:
      loadLimit(cpu, takeSelector(), ok, word);
      break;
    case 15:
      verifySegment(cpu, takeSelector(), true, ok);
      break;
    case 16:
      writeXcr(cpu, 0, take(1));
      break;
    case 17:
      environment_.localApic.pendingVectors.assign(1, static_cast<int>(take(1)));
      cpu.events = static_cast<std::uint32_t>(take(2)) & 0x1ff & ~event::stop;
      handleEvents(cpu);
      break;
    case 18:
      invalidatePage(cpu, takeAddress());
      break;
    case 19:
      setPkru(cpu, static_cast<std::uint32_t>(take(4)));
      break;
    case 20:
      setAccessCheck(cpu, (take(1) & 1) != 0);
      break;
    case 21:
      readControl(cpu, static_cast<unsigned>(take(1) & 15), value);
      break;
    case 22:
      hypercall(cpu);
      break;
    default:
      pushFlags(cpu, 2, value);
      break;
  }
}

inline void SystemFuzzer::memoryOperation(unsigned which) {
  Cpu& cpu = *cpu_;
  static std::byte buffer[4096];
  std::uint8_t bytes[15];
  std::uint64_t value = 0, linear = 0, at = takeAddress();
  unsigned size = 1u << (take(1) & 3);
  if (!cpu.longMode()) at &= 0xffff'ffff;
  if (!isCanonical(cpu, at) || !isCanonical(cpu, at + 4095)) at &= 0xffff;
  switch (which) {
    case 0:
      readFast(cpu, at, size, value);
      break;
    case 1:
      writeFast(cpu, at, size, take(8));
      break;
    case 2:
      readLinearBytes(cpu, at, buffer, static_cast<unsigned>(take(2) & 0xfff));
      break;
    case 3:
      writeLinearBytes(cpu, at, buffer, static_cast<unsigned>(take(1)));
      break;
    case 4:
      fetchInstruction(cpu, bytes);
      break;
    case 5:
      linearAddress(cpu, static_cast<Segment>(take(1) % 6), take(4), size, Access::write, linear);
      break;
    case 6:
      if (std::byte* p = writablePointer(cpu, at, size)) {
        storeHost(p, size, 0);
        wroteTo(cpu, p, size);
      }
      break;
    default:
      probeLinear(cpu, at, size, Access::execute);
      break;
  }
}

inline void SystemFuzzer::operation() {
  auto which = static_cast<unsigned>(take(1));
  if (which < 100) return transferOperation(which % 14);
  if (which < 200) return registerOperation(which % 24);
  memoryOperation(which % 8);
}

}  // namespace lodge::x86
