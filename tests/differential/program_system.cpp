// SPDX-License-Identifier: Apache-2.0
// What kernels do: system instructions with operands that make sense.
#include "tests/differential/program.h"

namespace lodge::differential {

using namespace x86;

void Program::bytes(std::initializer_list<unsigned> list) {
  for (unsigned b : list) byte(b);
}

void Program::system() {
  switch (below(14)) {
    case 0:
    case 1:
      return interruptFlag();
    case 2:
    case 3:
      return accessCheck();
    case 4:
    case 5:
      return segmentBases();
    case 6:
      return controlRegister();
    case 7:
      return modelRegister();
    case 8:
      return invalidate();
    case 9:
      return chance(30) ? segmentRegister() : flags();
    case 10:
      return chance(50) ? interruptReturn(chance(40)) : flags();
    case 11:
      return chance(20) ? systemReturn() : interruptFlag();
    case 12:
      return chance(30) ? debugRegisters() : accessCheck();
    default:
      return portOrCpuid();
  }
}

/// CLI, STI; PUSHF, CLI, POPF around something; now and then HLT.
void Program::interruptFlag() {
  if (chance(4)) return byte(0xf4);
  if (chance(50)) return byte(0xfa | below(2));
  byte(0x9c);
  byte(0xfa);
  focused();
  byte(0x9d);
}

/// STAC and CLAC, around something or not.
void Program::accessCheck() {
  bytes({0x0f, 0x01, 0xca | static_cast<unsigned>(below(2))});
  if (chance(40)) return;
  focused();
  if (chance(50)) focused();
  bytes({0x0f, 0x01, 0xca});
}

/// SWAPGS, RDFSBASE and its kin.
void Program::segmentBases() {
  if (chance(40)) {
    bytes({0x0f, 0x01, 0xf8});
    if (chance(60)) {
      focused();
      bytes({0x0f, 0x01, 0xf8});
    }
    return;
  }
  auto r = static_cast<unsigned>(below(16)), which = static_cast<unsigned>(below(2));
  bool write = chance(50);
  if (!write && (kept_ >> r & 1) != 0) r = spare_;
  bytes({0xf3, 0x40 | (chance(70) ? 8u : 0u) | r >> 3, 0x0f, 0xae, 0xc0 | (write ? 2 + which : which) << 3 | (r & 7)});
}

/// Reads CR0, CR2, CR3, CR4 or CR8 and writes the same value, or with TS, SMAP or WP turned.
void Program::controlRegister() {
  constexpr unsigned kRegisters[] = {0, 2, 3, 4, 8};
  unsigned cr = kRegisters[below(5)];
  unsigned r = spare_;
  unsigned rex = 0x40 | (cr >> 3) << 2 | r >> 3, modrm = 0xc0 | (cr & 7) << 3 | (r & 7);
  if (chance(10)) return bytes({0x0f, 0x06});  // CLTS
  bytes({rex, 0x0f, 0x20, modrm});
  if (chance(30)) return;
  if (cr == 0 || cr == 4) {
    unsigned bit = cr == 4 ? 21 : chance(50) ? 3 : 16;  // BTC r, bit
    if (chance(60)) bytes({0x48 | r >> 3, 0x0f, 0xba, 0xf8 | (r & 7), bit});
  }
  bytes({rex, 0x0f, 0x22, modrm});
}

/// RDMSR and WRMSR of what belongs to translated code's state.
void Program::modelRegister() {
  constexpr std::uint32_t kNumbers[] = {0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000100,
                                        0xc0000101, 0xc0000102, 0xc0000103, 0x174,      0x277};
  moveImmediate(rcx, kNumbers[below(sizeof kNumbers / sizeof kNumbers[0])]);
  bytes({0x0f, 0x32});
  if (chance(60)) bytes({0x0f, 0x30});
}

void Program::moveImmediate64(Register r, std::uint64_t value) {
  byte(0x48 | r >> 3);
  byte(0xb8 | (r & 7));
  dword(value);
  dword(value >> 32);
}

/// Turns P, W, U, A or D of a data page's entry, and INVLPG or a reload of CR3.
void Program::changeMapping() {
  unsigned page = kEntryPages[below(3)], r = spare_, b = r >> 3, low = r & 7;
  constexpr unsigned kBits[] = {0, 1, 1, 2, 5, 6};
  moveImmediate64(spare_, kEntriesBase + (((kDataBase >> 12) + page) & 511) * 8);
  bytes({0x48 | b, 0x0f, 0xba, 0x78 | low});  // BTC qword [r + 0], bit
  if (low == 4) byte(0x24);
  bytes({0, kBits[below(6)]});
  if (chance(20)) {
    bytes({0x40 | b, 0x0f, 0x20, 0xd8 | low, 0x40 | b, 0x0f, 0x22, 0xd8 | low});
  } else {
    moveImmediate64(spare_, kDataBase + kUpperHalf + page * 4096);
    bytes({0x40 | b, 0x0f, 0x01, 0x78 | low});
    if (low == 4) byte(0x24);
    byte(below(128));
  }
  focused();
}

/// INVLPG of a pointer's page.
void Program::invalidate() {
  if (chance(60)) return changeMapping();
  Register base = pointer();
  bytes({0x40u | base >> 3, 0x0f, 0x01, 0x78u | (base & 7u)});
  if ((base & 7) == rsp) byte(0x24);
  byte(below(256));
}

/// MOV DS, ES, SS, FS or GS with a selector that is good there, or a null one.
void Program::segmentRegister() {
  constexpr unsigned kSegments[] = {0, 2, 3, 4, 5};
  unsigned segment = kSegments[below(5)];
  moveImmediate(spare_, chance(70) ? 0x18 : chance(50) ? 0x2b : 0);
  bytes({0x40u | spare_ >> 3, 0x8e, 0xc0 | segment << 3 | (spare_ & 7u)});
}

/// IRETQ to what follows, at CPL 0, or at CPL 3 in the lower half.
void Program::interruptReturn(bool toUser) {
  unsigned r = spare_, b = r >> 3, low = r & 7;
  bytes({0x48 | b << 2, 0x89, 0xe0 | low});  // MOV r, RSP
  bytes({0x6a, toUser ? 0x2bu : 0x18u});
  if (b != 0) byte(0x41);
  byte(0x50 | low);
  byte(0x9c);
  bytes({0x6a, toUser ? 0x33u : 0x10u});
  Place end = leaCode(static_cast<Register>(r));
  if (toUser) {  // the lower half: bits 48-63 are those of the upper half's first page
    bytes({0x48 | b, 0xc1, 0xe0 | low, 20, 0x48 | b, 0xc1, 0xe8 | low, 20});
  }
  if (b != 0) byte(0x41);
  byte(0x50 | low);
  bytes({0x48, 0xcf});
  jumpHere(end);
}

/// SYSRETQ to what follows in the lower half.
void Program::systemReturn() {
  Place end = leaCode(rcx);
  bytes({0x48, 0xc1, 0xe1, 20, 0x48, 0xc1, 0xe9, 20});
  bytes({0x41, 0xbb});
  dword(0x202 | (from_.random() & 0x8d5));  // MOV R11D, flags
  bytes({0x48, 0x0f, 0x07});
  jumpHere(end);
  if (chance(50)) bytes({0x0f, 0x05});
}

/// A breakpoint at a pointer's address, for a while or for good.
void Program::debugRegisters() {
  Register base = pointer();
  bytes({0x40u | base >> 3, 0x0f, 0x23, 0xc0u | (base & 7u)});  // MOV DR0, base
  constexpr std::uint32_t kControls[] = {0x400, 0x00010401, 0x000d0401, 0x00030402, 0x00000401};
  moveImmediate(spare_, kControls[below(5)]);
  bytes({0x40u | spare_ >> 3, 0x0f, 0x23, 0xf8u | (spare_ & 7u)});
}

void Program::portOrCpuid() {
  switch (below(4)) {
    case 0:
      return bytes({0xe4, static_cast<unsigned>(below(256))});
    case 1:
      return bytes({0xe6, static_cast<unsigned>(below(256))});
    case 2:
      moveImmediate(rax, static_cast<std::uint32_t>(below(8)));
      moveImmediate(rcx, 0);
      return bytes({0x0f, 0xa2});
    default:
      return bytes({0x0f, 0x31, 0x31, 0xc0, 0x31, 0xd2});  // RDTSC, whose result is not looked at
  }
}

}  // namespace lodge::differential
