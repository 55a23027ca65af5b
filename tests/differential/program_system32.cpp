// SPDX-License-Identifier: Apache-2.0
// What 32-bit kernels do, in protected mode.
#include "tests/differential/program.h"

namespace lodge::differential {

using namespace x86;

void Program::system32() {
  switch (below(8)) {
    case 0:
      return flagsOfInterrupts();
    case 1:
      return controlRegister32();
    case 2:
      return changeMapping32();
    case 3:  // MOV DS, ES, SS, FS or GS with a selector that is good there, or a null one
      moveImmediate(spare_, chance(70) ? 0x18 : chance(50) ? 0x2b : 0);
      return bytes({0x8e, 0xc0 | static_cast<unsigned>(chance(50) ? 3 * below(2) : 2 + below(4)) << 3 | spare_});
    case 4:
      return transfer32();
    case 5:
      moveImmediate(rax, static_cast<std::uint32_t>(below(8)));
      moveImmediate(rcx, 0);
      return bytes({0x0f, 0xa2});
    case 6:
      return bytes({0xe4 | static_cast<unsigned>(below(2)) << 1, static_cast<unsigned>(below(256))});  // IN or OUT
    default:
      return flags();
  }
}

/// CLI, STI; PUSHF, CLI, POPF around something.
void Program::flagsOfInterrupts() {
  if (chance(50)) return byte(0xfa | below(2));
  bytes({0x9c, 0xfa});
  focused();
  byte(0x9d);
}

/// Reads CR0, CR2, CR3 or CR4 and writes the same value, or with TS, WP or PGE turned.
void Program::controlRegister32() {
  if (chance(10)) return bytes({0x0f, 0x06});  // CLTS
  constexpr unsigned kRegisters[] = {0, 2, 3, 4};
  unsigned cr = kRegisters[below(4)], modrm = 0xc0 | cr << 3 | spare_;
  bytes({0x0f, 0x20, modrm});
  if (chance(30)) return;
  unsigned bit = cr == 4 ? 7 : chance(50) ? 3 : 16;
  if ((cr == 0 || cr == 4) && chance(60)) bytes({0x0f, 0xba, 0xf8u | spare_, bit});
  bytes({0x0f, 0x22, modrm});
}

/// Turns P, W, U, A or D of a data page's entry, and INVLPG or a reload of CR3; or only INVLPG.
void Program::changeMapping32() {
  if (chance(25)) {
    bytes({0x0f, 0x01});
    return nearOperand(7, pointer(), below(256));
  }
  unsigned page = kEntryPages[below(3)], r = spare_;
  constexpr unsigned kBits[] = {0, 1, 1, 2, 5, 6};
  auto entry = static_cast<std::uint32_t>(kEntriesAlias + (((kDataAlias >> 12) + page) & 511) * 8);
  moveImmediate(spare_, entry);
  bytes({0x0f, 0xba, 0x38 | r, kBits[below(6)]});  // BTC dword [r], bit
  if (chance(20)) {
    bytes({0x0f, 0x20, 0xd8 | r, 0x0f, 0x22, 0xd8 | r});
  } else {
    moveImmediate(spare_, static_cast<std::uint32_t>(kDataAlias + page * 4096));
    bytes({0x0f, 0x01, 0x38 | r});
  }
  focused();
}

/// To what follows: IRET at CPL 0 or to CPL 3, a far CALL with its RETF, or a far JMP.
void Program::transfer32() {
  constexpr unsigned kKernelCode = 0x10, kUserCode = 0x23, kUserStack = 0x2b;
  unsigned r = spare_;
  if (chance(50)) {
    bool toUser = chance(40);
    bytes({0x89, 0xe0 | r});  // MOV r, ESP
    if (toUser) bytes({0x6a, kUserStack, 0x50 | r});
    bytes({0x9c, 0x6a, toUser ? kUserCode : kKernelCode});
    Place end = leaCode(spare_);
    bytes({0x50 | r, 0xcf});
    return jumpHere(end);
  }
  bool call = chance(50);
  byte(call ? 0x9a : 0xea);
  dword(0);
  Place end{to_.length, 4, 0 - codeStart()};
  bytes({kKernelCode, 0});
  if (!call) return jumpHere(end);
  bytes({0xeb, 1});  // over the RETF
  jumpHere(end);
  byte(0xcb);
}

}  // namespace lodge::differential
