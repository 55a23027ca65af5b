// SPDX-License-Identifier: Apache-2.0
#include "x86/debug_registers.h"

#include "x86/events.h"
#include "x86/system.h"
#include "x86/tlb.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

// R/W fields of DR7 (SDM vol. 3, 17.2.4).
enum class Kind : unsigned { execute = 0, write = 1, io = 2, readWrite = 3 };

struct Breakpoint {
  bool enabled;
  Kind kind;
  std::uint64_t address;
  unsigned size;
};

Breakpoint breakpoint(const CpuState& state, unsigned number) {
  std::uint64_t control = state.dr[7];
  static constexpr std::uint8_t kSizes[] = {1, 2, 8, 4};
  unsigned fields = static_cast<unsigned>(control >> (16 + 4 * number)) & 15;
  Breakpoint b{};
  b.enabled = ((control >> (2 * number)) & 3) != 0;
  b.kind = static_cast<Kind>(fields & 3);
  b.size = kSizes[fields >> 2];
  // The low bits that the length covers are ignored (17.2.5).
  b.address = state.dr[number] & ~std::uint64_t{b.size - 1};
  return b;
}

bool overlaps(const Breakpoint& b, std::uint64_t address, unsigned size) {
  return address < b.address + b.size && b.address < address + size;
}

bool isData(const Breakpoint& b) {
  return b.kind == Kind::write || b.kind == Kind::readWrite;
}

}  // namespace

bool pageHasDataBreakpointSlow(const CpuState& state, std::uint64_t linear) {
  for (unsigned i = 0; i < 4; ++i) {
    Breakpoint b = breakpoint(state, i);
    if (b.enabled && isData(b) && overlaps(b, linear & ~kPageMask, kPageSize)) return true;
  }
  return false;
}

void noteDataAccessSlow(Cpu& cpu, std::uint64_t linear, unsigned size, Access access) {
  for (unsigned i = 0; i < 4; ++i) {
    Breakpoint b = breakpoint(cpu.state, i);
    bool watches = b.kind == Kind::readWrite || (b.kind == Kind::write && access == Access::write);
    if (b.enabled && watches && overlaps(b, linear, size)) cpu.state.pendingDebug |= 1ull << i;
  }
}

void notePortAccess(Cpu& cpu, std::uint16_t port, unsigned size) {
  if ((cpu.state.dr[7] & dr7::enables) == 0 || (cpu.state.cr4 & cr4::de) == 0) return;
  for (unsigned i = 0; i < 4; ++i) {
    Breakpoint b = breakpoint(cpu.state, i);
    if (b.enabled && b.kind == Kind::io && overlaps(b, port, size)) cpu.state.pendingDebug |= 1ull << i;
  }
}

bool beforeInstruction(Cpu& cpu) {
  CpuState& state = cpu.state;
  bool resume = (state.rflags & flag::rf) != 0;
  state.rflags &= ~flag::rf;
  if (resume || (state.dr[7] & dr7::enables) == 0 || state.interruptShadow == 2) return true;
  std::uint64_t linear = cpu.mode64() ? state.rip : (state.segment[cs].base + state.rip) & 0xffff'ffff;
  std::uint64_t hit = 0;
  for (unsigned i = 0; i < 4; ++i) {
    Breakpoint b = breakpoint(state, i);
    if (b.enabled && b.kind == Kind::execute && b.address == linear) hit |= 1ull << i;
  }
  return hit == 0 || raiseDebug(cpu, hit);
}

void afterInstruction(Cpu& cpu, std::uint64_t rflagsBefore, std::uint8_t shadowBefore) {
  CpuState& state = cpu.state;
  // A shadow that was there before has had its one instruction, unless that instruction is a new MOV SS.
  bool newMovSs = state.interruptShadow == 2 && shadowBefore != 2;
  if (shadowBefore != 0 && !newMovSs) {
    state.interruptShadow = 0;
    rearmDeferredEvents(cpu);
  }
  if ((rflagsBefore & flag::tf) != 0) state.pendingDebug |= dr6::bs;
  if (state.pendingDebug == 0 || state.interruptShadow == 2) {
    // Single step is inhibited after MOV SS and not made up for; data breakpoints are held (17.3.1.4, 6.8.3).
    state.pendingDebug &= ~dr6::bs;
    return;
  }
  std::uint64_t bits = state.pendingDebug;
  state.pendingDebug = 0;
  raiseDebug(cpu, bits);
  deliverException(cpu);
}

// DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE; GD guards all of them (17.2.2, 17.2.4).
namespace {

bool selectDebug(Cpu& cpu, unsigned& number) {
  if (number >= 8) return raiseUd(cpu);
  if (number == 4 || number == 5) {
    if ((cpu.state.cr4 & cr4::de) != 0) return raiseUd(cpu);
    number += 2;
  }
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  if ((cpu.state.dr[7] & dr7::gd) != 0) return raiseDebug(cpu, dr6::bd);
  return true;
}

}  // namespace

bool readDebug(Cpu& cpu, unsigned number, std::uint64_t& value) {
  if (!selectDebug(cpu, number)) return false;
  value = cpu.state.dr[number];
  return true;
}

bool writeDebug(Cpu& cpu, unsigned number, std::uint64_t value) {
  if (!selectDebug(cpu, number)) return false;
  CpuState& state = cpu.state;
  if (!cpu.mode64()) value &= 0xffff'ffff;
  if (number == 6) {
    if (value >> 32 != 0) return raiseGp(cpu, 0);
    state.dr[6] = (value & (dr6::hits | dr6::bd | dr6::bs | dr6::bt)) | dr6::fixedOnes;
    return true;
  }
  if (number == 7) {
    if (value >> 32 != 0) return raiseGp(cpu, 0);
    state.dr[7] = (value & 0xffff'23ff) | dr7::fixedOnes;
  } else {
    // On processors with 64-bit breakpoints a non-canonical address matches nothing; it is kept as written.
    state.dr[number] = value;
  }
  // The TLB must not hold pages with armed breakpoints.
  if ((state.dr[7] & dr7::enables) != 0) clearTlb(cpu);
  if (cpu.listener) cpu.listener->modeChanged();
  return true;
}

}  // namespace lodge::x86
