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
      kernelTable = 1 << 2,  ///< CPL 0, SMAP on and AC = 0: data accesses go through the kernel's soft TLB only
      accessCheck = 1 << 3,  ///< RFLAGS.AC
      smap = 1 << 4,         ///< CR4.SMAP
      x87 = 1 << 5,          ///< x87 and MMX instructions execute (CR0.EM, CR0.TS)
      sse = 1 << 6,          ///< SSE instructions execute (CR0.EM, CR0.TS, CR4.OSFXSR)
      avx = 1 << 7,          ///< AVX instructions execute (CR4.OSXSAVE, XCR0, CR0.TS)
      fwait = 1 << 8,        ///< FWAIT executes (CR0.MP, CR0.TS)
      fsgsbase = 1 << 9,     ///< CR4.FSGSBASE
      syscall = 1 << 10,     ///< EFER.SCE
      timeStamp = 1 << 11,   ///< RDTSC executes here (CPL 0 or not CR4.TSD)
      portIo = 1 << 12,      ///< CPL <= IOPL: CLI and STI execute
      translatable = 1 << 31;

  /// Bits that are the same for kernel and user code.
  static constexpr std::uint32_t shared = x87 | sse | avx | fwait | fsgsbase | syscall;

  bool has(std::uint32_t bit) const { return (bits & bit) != 0; }
  ExecMode mode() const {
    if (has(user)) return has(code64) ? ExecMode::user64 : ExecMode::user32;
    return has(accessCheck) && has(smap) ? ExecMode::kernelAc : ExecMode::kernel;
  }
};

/// The key of the CPU's state as it is; without `translatable` where the interpreter must do the work.
ModeKey modeKey(const x86::Cpu& cpu);

}  // namespace lodge::translate
