// SPDX-License-Identifier: Apache-2.0
// Register and memory operands of the interpreter's handlers. The inline halves are what a hit in the TLB costs.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/interpret/context.h"
#include "x86/system.h"
#include "x86/tlb.h"
#include "x86/virtual_memory.h"

namespace lodge::interpret {

using x86::Access;
using x86::CpuState;
using x86::Segment;

inline std::byte* stateBytes(Cpu& cpu) {
  return reinterpret_cast<std::byte*>(&cpu.state);
}
inline std::uint64_t& qword(Cpu& cpu, std::uint16_t offset) {
  return *reinterpret_cast<std::uint64_t*>(stateBytes(cpu) + offset);
}

template <class T>
inline T readReg(Cpu& cpu, std::uint16_t offset) {
  return *reinterpret_cast<T*>(stateBytes(cpu) + offset);
}
/// Doubleword results clear the upper half (SDM vol. 1, 3.4.1.1).
template <class T>
inline void writeReg(Cpu& cpu, std::uint16_t offset, T value) {
  if constexpr (sizeof(T) == 4) {
    qword(cpu, offset) = value;
  } else {
    *reinterpret_cast<T*>(stateBytes(cpu) + offset) = value;
  }
}
/// The same by size in bytes.
std::uint64_t readRegSized(Cpu& cpu, std::uint16_t offset, unsigned size);
void writeRegSized(Cpu& cpu, std::uint16_t offset, unsigned size, std::uint64_t value);

inline std::uint64_t effectiveAddress(Cpu& cpu, const Decoded& d) {
  std::uint64_t address = static_cast<std::uint64_t>(d.displacement);
  if (d.base != kNoOffset) address += qword(cpu, d.base);
  if (d.index != kNoOffset) address += qword(cpu, d.index) << d.scaleShift;
  return address & d.addressMask;
}

/// What lies `bytes` behind the beginning of an operand: addresses of 16 bits, and of 32 in 64-bit code, do not wrap
/// within one.
inline std::uint64_t withinOperand(const Decoded& d, std::uint64_t address, std::uint64_t bytes) {
  return (address + bytes) & (d.code64 ? ~std::uint64_t{0} : 0xffff'ffff);
}

/// Whether accesses of this kind at [offset, offset+size) of the segment need no closer look, outside 64-bit mode.
template <Access access>
inline bool segmentAllows(const x86::SegmentRegister& s, std::uint64_t offset, unsigned size) {
  // Present, S; writable expand-up data, or for reads any data that is expand-up, or readable code.
  bool kind = (s.attributes & 0x9e) == 0x92;
  if constexpr (access == Access::read) kind = kind || (s.attributes & 0x9c) == 0x90 || (s.attributes & 0x9a) == 0x9a;
  return kind && offset + size - 1 <= s.limit;
}

/// Linear address for the fast paths. In 64-bit mode it may be noncanonical: no TLB entry matches it then. False: use
/// the slow path.
template <Access access>
[[gnu::always_inline]] inline bool quickLinear(Cpu& cpu, bool code64, unsigned segment, std::uint64_t offset,
                                               unsigned size, std::uint64_t& linear) {
  const x86::SegmentRegister& s = cpu.state.segment[segment];
  if ((cpu.state.rflags & x86::flag::ac) != 0 && cpu.state.cpl == 3) [[unlikely]]
    return false;
  if (code64) [[likely]] {
    linear = segment < x86::fs ? offset : s.base + offset;
    return true;
  }
  linear = static_cast<std::uint32_t>(s.base + offset);
  return segmentAllows<access>(s, offset, size);
}

// --- slow halves (operands.cpp). All leave the state alone on a fault.

/// Segment checks, then alignment (#AC, which on AMD's processors comes before page faults).
bool checkedLinear(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, Access access,
                   std::uint64_t& linear);
/// #AC: CR0.AM, EFLAGS.AC, CPL 3. `alignment` is a power of two.
bool checkAlignment(Cpu& cpu, std::uint64_t linear, unsigned alignment);
bool readSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, std::uint64_t& value);
bool writeSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, std::uint64_t value);

/// Reads seg:offset. False: a fault is pending.
template <class T>
[[gnu::always_inline]] inline bool readAt(Cpu& cpu, bool code64, unsigned segment, std::uint64_t offset, T& value) {
  std::uint64_t linear;
  if (quickLinear<Access::read>(cpu, code64, segment, offset, sizeof(T), linear)) [[likely]] {
    if (const std::byte* p = x86::tlbReadable(cpu, linear, sizeof(T), x86::currentRights(cpu))) [[likely]] {
      value = static_cast<T>(x86::loadHost(p, sizeof(T)));
      return true;
    }
  }
  std::uint64_t wide = 0;
  if (!readSlow(cpu, segment, offset, sizeof(T), wide)) return false;
  value = static_cast<T>(wide);
  return true;
}

template <class T>
[[gnu::always_inline]] inline bool writeAt(Cpu& cpu, bool code64, unsigned segment, std::uint64_t offset, T value) {
  std::uint64_t linear;
  if (quickLinear<Access::write>(cpu, code64, segment, offset, sizeof(T), linear)) [[likely]] {
    if (std::byte* p = x86::tlbWritable(cpu, linear, sizeof(T), x86::currentRights(cpu))) [[likely]] {
      x86::storeHost(p, sizeof(T), value);
      x86::wroteToCpuView(cpu, p, sizeof(T));
      return true;
    }
  }
  return writeSlow(cpu, segment, offset, sizeof(T), value);
}

template <class T>
[[gnu::always_inline]] inline bool readMemory(Cpu& cpu, const Decoded& d, T& value) {
  return readAt<T>(cpu, d.code64, d.segment, effectiveAddress(cpu, d), value);
}
template <class T>
[[gnu::always_inline]] inline bool writeMemory(Cpu& cpu, const Decoded& d, T value) {
  return writeAt<T>(cpu, d.code64, d.segment, effectiveAddress(cpu, d), value);
}

/// One memory operand that is read, changed and written back.
struct RmwSlot {
  std::byte* host;  ///< null: emulate with a read and a write
  std::uint64_t linear;
  bool inCpuView;  ///< `host` came from the TLB
};
/// After the store to slot.host.
[[gnu::always_inline]] inline void wroteSlot(Cpu& cpu, const RmwSlot& slot, unsigned size) {
  if (slot.inCpuView) [[likely]] {
    x86::wroteToCpuView(cpu, slot.host, size);
  } else {
    x86::wroteTo(cpu, slot.host, size);
  }
}
/// Checks for writing. False: a fault is pending.
bool prepareRmwSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, RmwSlot& slot);

[[gnu::always_inline]] inline bool prepareRmw(Cpu& cpu, const Decoded& d, std::uint64_t offset, unsigned size,
                                              RmwSlot& slot) {
  if (quickLinear<Access::write>(cpu, d.code64, d.segment, offset, size, slot.linear)) [[likely]] {
    slot.host = x86::tlbWritable(cpu, slot.linear, size, x86::currentRights(cpu));
    slot.inCpuView = true;
    if (slot.host) [[likely]]
      return true;
  }
  return prepareRmwSlow(cpu, d.segment, offset, size, slot);
}

/// Runs `change` (T to T, sets flags) on a memory operand. The write was checked before, so that flags and memory
/// change together or not at all.
template <class T, class Change>
[[gnu::always_inline]] inline Outcome changeAt(Cpu& cpu, const Decoded& d, std::uint64_t offset, Change change) {
  RmwSlot slot;
  if (!prepareRmw(cpu, d, offset, sizeof(T), slot)) return Outcome::fault;
  if (slot.host) [[likely]] {
    T value = change(static_cast<T>(x86::loadHost(slot.host, sizeof(T))));
    x86::storeHost(slot.host, sizeof(T), value);
    wroteSlot(cpu, slot, sizeof(T));
    return Outcome::next;
  }
  std::uint64_t flags = cpu.state.rflags;
  std::uint64_t wide;
  if (!x86::readLinear(cpu, slot.linear, sizeof(T), wide)) return Outcome::fault;
  T value = change(static_cast<T>(wide));
  if (x86::writeLinear(cpu, slot.linear, sizeof(T), value)) return Outcome::next;
  cpu.state.rflags = flags;
  return Outcome::fault;
}
template <class T, class Change>
[[gnu::always_inline]] inline Outcome changeMemory(Cpu& cpu, const Decoded& d, Change change) {
  return changeAt<T>(cpu, d, effectiveAddress(cpu, d), change);
}

/// Reads an r/m operand of either kind.
template <class T>
[[gnu::always_inline]] inline bool readRm(Cpu& cpu, const Decoded& d, T& value) {
  if (d.insn.memory) return readMemory<T>(cpu, d, value);
  value = readReg<T>(cpu, d.rm);
  return true;
}
template <class T>
[[gnu::always_inline]] inline bool writeRm(Cpu& cpu, const Decoded& d, T value) {
  if (d.insn.memory) return writeMemory<T>(cpu, d, value);
  writeReg<T>(cpu, d.rm, value);
  return true;
}
/// By operand size (2, 4, 8), for instructions that are rare.
bool readRmSized(Cpu& cpu, const Decoded& d, unsigned size, std::uint64_t& value);
bool writeRmSized(Cpu& cpu, const Decoded& d, unsigned size, std::uint64_t value);

// --- stack

/// What part of RSP addresses the stack.
inline std::uint64_t stackMask(const Cpu& cpu, bool code64) {
  if (code64) return ~std::uint64_t{0};
  return cpu.state.segment[x86::ss].big() ? 0xffffffff : 0xffff;
}
inline void setStackPointer(Cpu& cpu, std::uint64_t mask, std::uint64_t value) {
  std::uint64_t& sp = cpu.state.gpr[x86::rsp];
  sp = mask == 0xffff ? (sp & ~mask) | (value & mask) : value & mask;
}
/// Pushes `value`; RSP moves only if that works.
template <class T>
[[gnu::always_inline]] inline bool pushValue(Cpu& cpu, bool code64, T value) {
  std::uint64_t mask = stackMask(cpu, code64);
  std::uint64_t sp = (cpu.state.gpr[x86::rsp] - sizeof(T)) & mask;
  if (!writeAt<T>(cpu, code64, x86::ss, sp, value)) return false;
  setStackPointer(cpu, mask, sp);
  return true;
}
/// Reads the top of the stack and leaves RSP; `depth` bytes below the top.
template <class T>
[[gnu::always_inline]] inline bool peekStack(Cpu& cpu, bool code64, T& value, std::uint64_t depth = 0) {
  std::uint64_t sp = (cpu.state.gpr[x86::rsp] + depth) & stackMask(cpu, code64);
  return readAt<T>(cpu, code64, x86::ss, sp, value);
}
inline void dropStack(Cpu& cpu, bool code64, std::uint64_t bytes) {
  std::uint64_t mask = stackMask(cpu, code64);
  setStackPointer(cpu, mask, cpu.state.gpr[x86::rsp] + bytes);
}
bool pushSized(Cpu& cpu, bool code64, unsigned size, std::uint64_t value);
bool peekSized(Cpu& cpu, bool code64, unsigned size, std::uint64_t& value, std::uint64_t depth = 0);

// --- conditions

/// Condition `code` & 15 as Jcc, SETcc and CMOVcc encode it (SDM vol. 1, appendix B).
[[gnu::always_inline]] inline bool conditionHolds(std::uint64_t rflags, unsigned code) {
  using namespace x86;
  auto set = [&](std::uint64_t bits) { return (rflags & bits) != 0; };
  bool less = set(flag::sf) != set(flag::of);
  bool holds = false;
  switch ((code >> 1) & 7) {
    case 0:
      holds = set(flag::of);
      break;
    case 1:
      holds = set(flag::cf);
      break;
    case 2:
      holds = set(flag::zf);
      break;
    case 3:
      holds = set(flag::cf | flag::zf);
      break;
    case 4:
      holds = set(flag::sf);
      break;
    case 5:
      holds = set(flag::pf);
      break;
    case 6:
      holds = less;
      break;
    default:
      holds = less || set(flag::zf);
      break;
  }
  return holds != ((code & 1) != 0);
}

// --- instruction pointer

inline std::uint64_t nextRip(const Cpu& cpu, const Decoded& d) {
  std::uint64_t next = cpu.state.rip + d.length;
  return d.code64 ? next : next & 0xffffffff;
}
inline Outcome outcomeOf(bool good) {
  return good ? Outcome::next : Outcome::fault;
}
inline Outcome jumpOutcome(bool good) {
  return good ? Outcome::jumped : Outcome::fault;
}
inline bool isSupervisor(const Cpu& cpu) {
  return cpu.state.cpl == 0;
}

}  // namespace lodge::interpret
