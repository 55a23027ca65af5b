// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/mode_key.h"

#include "x86/system.h"

namespace lodge::translate {

namespace {
using namespace x86;

// Descriptor attributes (SDM vol. 3, 3.4.5).
constexpr std::uint16_t kPresent = 0x80, kNotSystem = 0x10, kCode = 8, kExpandDown = 4, kWritable = 2;

bool is4GiB(const SegmentRegister& s) {
  return s.limit == 0xffff'ffff;
}
/// Data of 4 GiB that may be written.
bool isOpenData(const SegmentRegister& s) {
  constexpr std::uint16_t mask = kPresent | kNotSystem | kCode | kExpandDown | kWritable;
  return is4GiB(s) && (s.attributes & mask) == (kPresent | kNotSystem | kWritable);
}
bool isFlatData(const SegmentRegister& s) {
  return s.base == 0 && isOpenData(s);
}

/// 32-bit code whose segments, FS and GS aside, are the whole of the linear address space.
bool isFlat32(const CpuState& s) {
  if ((s.cr0 & cr0::pe) == 0 || (s.rflags & flag::vm) != 0) return false;
  const SegmentRegister& code = s.segment[cs];
  if (code.base != 0 || !is4GiB(code) || !code.big()) return false;
  if ((s.efer & efer::lma) != 0 && s.cpl != 3) return false;  // the kernel's tables hold the upper half
  return s.segment[ss].big() && isFlatData(s.segment[ss]) && isFlatData(s.segment[ds]) && isFlatData(s.segment[es]);
}

bool canTranslate(const Cpu& cpu) {
  const CpuState& s = cpu.state;
  if ((s.cr4 & cr4::la57) != 0) return false;
  if (!cpu.mode64() && !isFlat32(s)) return false;
  if (s.cpl != 0 && s.cpl != 3) return false;
  if (instructionHooksNeeded(cpu)) return false;
  if (s.cpl == 3 && (s.cr0 & cr0::am) != 0 && (s.rflags & flag::ac) != 0) return false;  // alignment checks
  return true;
}

std::uint32_t vectorBits(const CpuState& s) {
  std::uint32_t bits = 0;
  bool switched = (s.cr0 & cr0::ts) != 0;
  bool emulated = (s.cr0 & cr0::em) != 0;
  if (!switched && !emulated) bits |= ModeKey::x87;
  if (!switched && !emulated && (s.cr4 & cr4::osfxsr) != 0) bits |= ModeKey::sse;
  if (!switched && (s.cr4 & cr4::osxsave) != 0 && (s.xcr0 & 6) == 6) {
    bits |= ModeKey::avx;
    if ((s.xcr0 & 0xe0) == 0xe0) bits |= ModeKey::avx512;
  }
  if (!(switched && (s.cr0 & cr0::mp) != 0)) bits |= ModeKey::fwait;
  return bits;
}
}  // namespace

ModeKey modeKey(const Cpu& cpu) {
  const CpuState& s = cpu.state;
  if (!canTranslate(cpu)) return {0};
  bool code64 = cpu.mode64();
  std::uint32_t bits = ModeKey::translatable | vectorBits(s);
  if (code64) bits |= ModeKey::code64;
  bool ac = (s.rflags & flag::ac) != 0;
  if (s.cpl == 3) {
    bits |= ModeKey::user;
    if ((s.cr4 & cr4::tsd) == 0) bits |= ModeKey::timeStamp;
  } else {
    bits |= ModeKey::timeStamp;
    if ((s.cr4 & cr4::smap) != 0) {
      bits |= ModeKey::smap;
      if (ac) {
        bits |= ModeKey::accessCheck;
      } else {
        bits |= ModeKey::kernelTable;
      }
    } else if (!code64) {
      bits |= ModeKey::kernelTable;
    }
  }
  if ((s.cr4 & cr4::fsgsbase) != 0) bits |= ModeKey::fsgsbase;
  if ((s.efer & efer::sce) != 0) bits |= ModeKey::syscall;
  if (s.cpl <= ((s.rflags >> 12) & 3)) bits |= ModeKey::portIo;
  return {bits};
}

std::uint64_t segmentGuard(const SegmentRegister& segment) {
  return isOpenData(segment) ? 0 : std::uint64_t{1} << 62;
}

}  // namespace lodge::translate
