// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/translate/code_map.h"
#include "x86/cpu.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

/// What translated code takes for granted about the CPU's mode: a part of the key under which it is found. Anything
/// that changes an answer of the translator and is not an operand of the instruction must be a bit here.
struct ModeKey {
  std::uint32_t bits;

  static constexpr std::uint32_t user = 1 << 0,  ///< CPL 3 (else CPL 0)
      code64 = 1 << 1,                           ///< 64-bit code (else flat 32-bit)
      kernelTable = 1 << 2,  ///< CPL 0: data accesses go through the kernel's soft TLB only (64-bit code: SMAP on and
                             ///< AC = 0; 32-bit code: not SMAP on and AC = 1)
      accessCheck = 1 << 3,  ///< RFLAGS.AC
      smap = 1 << 4,         ///< CR4.SMAP
      x87 = 1 << 5,          ///< x87 and MMX instructions execute (CR0.EM, CR0.TS)
      sse = 1 << 6,          ///< SSE instructions execute (CR0.EM, CR0.TS, CR4.OSFXSR)
      avx = 1 << 7,          ///< AVX instructions execute (CR4.OSXSAVE, XCR0, CR0.TS)
      fwait = 1 << 8,        ///< FWAIT executes (CR0.MP, CR0.TS)
      fsgsbase = 1 << 9,     ///< CR4.FSGSBASE
      syscall = 1 << 10,     ///< EFER.SCE
      timeStamp = 1 << 11,   ///< RDTSC executes here (CPL 0 or not CR4.TSD)
      avx512 = 1 << 13,      ///< EVEX and mask register instructions execute (as avx, more of XCR0)
      portIo = 1 << 12,      ///< CPL <= IOPL: CLI and STI execute
      translatable = 1 << 31;

  /// Bits that are the same for kernel and user code.
  static constexpr std::uint32_t shared = x87 | sse | avx | avx512 | fwait | fsgsbase | syscall;

  bool has(std::uint32_t bit) const { return (bits & bit) != 0; }
  /// Bytes of an address, a stack slot and a branch target.
  unsigned wordBytes() const { return has(code64) ? 8 : 4; }
  /// `rip`, wrapped at the end of the code's address space.
  std::uint64_t wrap(std::uint64_t rip) const { return has(code64) ? rip : static_cast<std::uint32_t>(rip); }
  ExecMode mode() const {
    if (has(user)) return has(code64) ? ExecMode::user64 : ExecMode::user32;
    return has(accessCheck) && has(smap) ? ExecMode::kernelAc : ExecMode::kernel;
  }
};

/// The key of the CPU's state as it is; without `translatable` where the interpreter must do the work.
ModeKey modeKey(const x86::Cpu& cpu);

/// What 32-bit code adds to addresses in FS or GS: 0 if the segment is a writable one of 4 GiB, else something that
/// leaves no address canonical, so that the interpreter checks the access.
std::uint64_t segmentGuard(const x86::SegmentRegister& segment);

}  // namespace lodge::translate
