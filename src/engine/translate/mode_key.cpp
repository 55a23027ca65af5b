// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/mode_key.h"

#include "x86/system.h"

namespace lodge::translate {

namespace {
using namespace x86;

bool canTranslate(const Cpu& cpu) {
  const CpuState& s = cpu.state;
  if (!cpu.mode64() || (s.cr0 & cr0::pg) == 0 || (s.cr4 & cr4::la57) != 0) return false;
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
  if (!switched && (s.cr4 & cr4::osxsave) != 0 && (s.xcr0 & 6) == 6) bits |= ModeKey::avx;
  if (!(switched && (s.cr0 & cr0::mp) != 0)) bits |= ModeKey::fwait;
  return bits;
}
}  // namespace

ModeKey modeKey(const Cpu& cpu) {
  const CpuState& s = cpu.state;
  if (!canTranslate(cpu)) return {0};
  std::uint32_t bits = ModeKey::translatable | ModeKey::code64 | vectorBits(s);
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
    }
  }
  if ((s.cr4 & cr4::fsgsbase) != 0) bits |= ModeKey::fsgsbase;
  if ((s.efer & efer::sce) != 0) bits |= ModeKey::syscall;
  if (s.cpl <= ((s.rflags >> 12) & 3)) bits |= ModeKey::portIo;
  return {bits};
}

}  // namespace lodge::translate
