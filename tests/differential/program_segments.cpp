// SPDX-License-Identifier: Apache-2.0
// Segment registers and what goes through descriptors, at CPL 3: the guest's tables are the host's (descriptors.h).
#include "tests/differential/descriptors.h"
#include "tests/differential/program.h"

namespace lodge::differential {

using namespace x86;

void Program::segments() {
  constexpr unsigned kLoads = 3;  // of FS and GS, most of them
  switch (hostKeepsNullBases() ? kLoads + below(4) : below(7)) {
    case 0:
      return loadSegment();
    case 1:
      return pushAndPopSegment();
    case 2:
      return farPointer();
    case 3:
    case 4:
      return queryDescriptor();
    case 5:
      return farTransfer();
    default:
      return userReturn();
  }
}

/// CS of the code itself.
std::uint16_t Program::ownCode() const {
  if (short16()) return to_.inPatchArea ? kPatch16 : code16Selector(slot_);
  return wide() ? kUserCs : kUserCs32;
}

/// Mostly the same; in protected mode never what is 64-bit code on the host.
std::uint16_t Program::otherCode() {
  std::uint16_t selector = chance(95) ? ownCode() : from_.selector();
  return from_.protectedMode_ && (selector | 3) == kUserCs ? ownCode() : selector;
}

/// PUSH of an immediate of the code's own size.
void Program::pushImmediate(std::uint32_t value) {
  byte(0x68);
  word(value);
}

/// MOV spare, selector; MOV ES, SS, DS, FS or GS, spare; or the other way round. Mostly FS and GS: the others are
/// needed.
void Program::loadSegment() {
  unsigned segment = chance(70) ? 4 + static_cast<unsigned>(below(2)) : static_cast<unsigned>(below(6));
  if (spare_ >= 8) return focused();
  if (chance(25)) return bytes({0x8c, 0xc0 | segment << 3 | spare_});
  moveImmediate(spare_, from_.selector());
  bytes({0x8e, 0xc0 | segment << 3 | spare_});
}

void Program::pushAndPopSegment() {
  constexpr std::uint8_t kPops[] = {0x07, 0x17, 0x1f};
  if (chance(50) || !hostExtendsSelectors()) {
    pushImmediate(from_.selector());
  } else if (wide() || chance(60)) {
    bytes({0x0f, chance(50) ? 0xa0u : 0xa8u});
  } else {
    byte(0x06 + 8 * below(4));
  }
  if (wide() || chance(75)) return bytes({0x0f, chance(50) ? 0xa1u : 0xa9u});
  byte(kPops[below(3)]);
}

/// LAR, LSL, VERR or VERW.
void Program::queryDescriptor() {
  if (spare_ >= 8) return focused();
  moveImmediate(spare_, from_.selector());
  if (chance(50)) return bytes({0x0f, 0x00, 0xe0 | static_cast<unsigned>(below(2)) << 3 | spare_});
  bool limit = chance(50) || !hostLarShowsLimit();
  bytes({0x0f, limit ? 3u : 2u, 0xc0u | spare_ << 3 | spare_});
}

/// LES, LDS, LSS, LFS or LGS of what was pushed.
void Program::farPointer() {
  if (size_ != CodeSize::bits32) return focused();
  pushImmediate(from_.selector());
  pushImmediate(static_cast<std::uint32_t>(from_.random()));
  constexpr unsigned kOpcodes[] = {0xb2, 0xb4, 0xb5, 0xb4, 0xb5, 0xb4, 0xb5};
  if (chance(10)) {
    byte(0xc4 | below(2));
  } else {
    bytes({0x0f, kOpcodes[below(7)]});
  }
  bytes({0x04u | spare_ << 3, 0x24, 0x58u | spare_, 0x58u | spare_});
}

/// A far JMP to what follows, or a far CALL and its RETF; in 64-bit code RETF alone.
void Program::farTransfer() {
  if (wide()) {
    pushImmediate(ownCode());
    Place end = leaCode(counter_);
    if (counter_ >= 8) byte(0x41);
    bytes({0x50u | (counter_ & 7), 0x48, 0xcb});
    return jumpHere(end);
  }
  bool call = chance(50) && hostExtendsSelectors();
  byte(call ? 0x9a : 0xea);
  word(0);
  Place end{to_.length, wordBytes(), 0 - codeStart()};
  unsigned selector = otherCode();
  bytes({selector & 0xff, selector >> 8});
  if (!call) return jumpHere(end);
  bool cuts = chance(20);
  bytes({0xeb, cuts ? 3u : 1u});  // over the RETF
  jumpHere(end);
  if (!cuts) return byte(0xcb);
  std::uint64_t bytesMore = chance(50) ? below(32) : below(0x10000);
  bytes({0xca, static_cast<unsigned>(bytesMore & 0xff), static_cast<unsigned>(bytesMore >> 8)});
}

/// IRET to what follows.
void Program::userReturn() {
  Register r = counter_;
  if (wide()) {
    Register stack = spare_;
    rex(8 | stack >> 3);
    bytes({0x89, 0xe0u | (stack & 7)});  // MOV stack, RSP
    pushImmediate(kUserSs);
    if (stack >= 8) byte(0x41);
    byte(0x50 | (stack & 7));
  }
  byte(0x9c);
  pushImmediate(otherCode());
  Place end = leaCode(r);
  if (r >= 8) byte(0x41);
  byte(0x50 | (r & 7));
  rex(8);
  byte(0xcf);
  jumpHere(end);
}

}  // namespace lodge::differential
