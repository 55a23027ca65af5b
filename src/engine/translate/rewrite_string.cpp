// SPDX-License-Identifier: Apache-2.0
// String instructions. REP STOS and REP MOVS within a page, by the host's own instruction: its registers hold host
// addresses meanwhile (RecordKind::movedDestination). What goes on in another page or for longer is the interpreter's.
// Single ones as what they are made of. Downwards, all are the interpreter's.
#include "engine/translate/frame_layout.h"
#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;

enum : unsigned { kAnd = 4, kCmp = 7 };
constexpr std::uint8_t kTest = 0x85, kGroup3 = 0xf7, kNot = 2;
constexpr std::int32_t kPage = 4096;

unsigned elementBytes(const Instruction& i) {
  return (i.opcode & 1) != 0 ? i.operandSize : 1;
}
bool readsSource(Op op) {
  return op == Op::movs || op == Op::lods || op == Op::cmps;
}
}  // namespace

/// Clobbers R12 and flags.
void Rewriter::goesUp(std::uint64_t slow) {
  hot_.load(4, host::address, atState(STATE_RFLAGS));
  hot_.testImmediate32(host::address, static_cast<std::uint32_t>(flag::df));
  hot_.jccTo(ccNe, slow);
}

/// Clobbers R12 and flags. RCX, from 1 to a page's worth, was tested.
void Rewriter::staysInPage(std::uint8_t pointer, unsigned bytes, std::uint64_t slow) {
  hot_.mov(4, host::address, pointer);
  hot_.arithmeticImmediate(4, kAnd, host::address, kPage - 1);
  hot_.lea(4, host::address, Mem{.base = host::address, .index = host::rcx, .scale = static_cast<std::uint8_t>(bytes)});
  hot_.arithmeticImmediate(4, kCmp, host::address, kPage);
  hot_.jccTo(ccA, slow);
}

/// Back to the guest's address: RDI or RSI minus its page's addend. Clobbers R12, no flags.
void Rewriter::moveBack(std::uint8_t pointer, std::uint8_t entry) {
  hot_.mov(8, host::address, entry);
  hot_.legacy(8, 0, kGroup3, kNot, host::address);
  hot_.lea(8, pointer, Mem{.base = pointer, .index = host::address, .displacement = 1 + static_cast<int>(kTlbValid)});
}

bool Rewriter::repeatedString(const GuestInstruction& g) {
  if (!host_.strings) return false;
  const Instruction& i = g.decoded;
  bool copies = i.info->op == Op::movs;
  unsigned bytes = elementBytes(i);
  bool keepFlags = !flagsDead();
  RecordKind kind = keepFlags ? RecordKind::flagsSaved : RecordKind::instruction;
  if (keepFlags) saveFlags();

  std::uint64_t slow = cold_.here();
  recordCold(kind, g.offset);
  cold_.legacy(8, 0, kTest, host::rcx, host::rcx);
  std::uint32_t nothing = cold_.jcc(ccE);
  if (keepFlags) restoreFlagsCold();
  callStep(cold_, g);
  recordCold(RecordKind::instruction, g.offset + i.length);  // done
  std::uint32_t stepped = cold_.jmp();
  cold_.patchHere(nothing);
  recordCold(kind, g.offset);
  if (keepFlags) restoreFlagsCold();
  std::uint32_t skipped = cold_.jmp();

  goesUp(slow);
  hot_.lea(8, host::address, Mem{.base = host::rcx, .displacement = -1});
  hot_.arithmeticImmediate(8, kCmp, host::address, kPage / static_cast<int>(bytes) - 1);
  hot_.jccTo(ccA, slow);
  staysInPage(host::rdi, bytes, slow);
  if (copies) {
    staysInPage(host::rsi, bytes, slow);
    std::uint64_t retry = hot_.here();
    lookUp(host::group, host::rsi);
    missPath(host::group, host::rsi, false, retry, kind);
  }
  std::uint64_t retry = hot_.here();
  lookUp(host::addend, host::rdi);
  missPath(host::addend, host::rdi, true, retry, kind);
  if (keepFlags) restoreFlags();

  constexpr auto less = -static_cast<std::int32_t>(kTlbValid);
  hot_.lea(8, host::rdi, Mem{.base = host::rdi, .index = host::addend, .displacement = less});
  record(RecordKind::movedDestination, g.offset);
  if (copies) {
    hot_.lea(8, host::rsi, Mem{.base = host::rsi, .index = host::group, .displacement = less});
    record(RecordKind::movedBoth, g.offset);
  }
  hot_.byte(i.repeat);
  if (bytes == 2) hot_.byte(0x66);
  if (bytes == 8) hot_.byte(0x48);
  hot_.byte(i.opcode);
  if (copies) {
    moveBack(host::rsi, host::group);
    record(RecordKind::movedDestination, g.offset);
  }
  moveBack(host::rdi, host::addend);
  cold_.patchTo(stepped, hot_.here());
  cold_.patchTo(skipped, hot_.here());
  return true;
}

/// The soft TLB's entry for an operand at RSI or RDI; clobbers flags and R13 besides.
void Rewriter::probeElement(std::uint8_t entry, std::uint8_t pointer, const Access& access, RecordKind kind) {
  if (access.bytes > 1) {
    hot_.patchTo(crossingTest(pointer, access.bytes), cold_.here());
    recordCold(kind, current_->offset);
    interpretIfCrossing(pointer, access.bytes);
  }
  std::uint64_t retry = hot_.here();
  lookUp(entry, pointer);
  missPath(entry, pointer, access.write, retry, kind);
}

bool Rewriter::singleString(const GuestInstruction& g) {
  constexpr std::uint8_t kCmpByte = 0x3a;
  const Instruction& i = g.decoded;
  Op op = i.info->op;
  unsigned bytes = elementBytes(i);
  bool source = readsSource(op), destination = op != Op::lods;
  bool writes = op == Op::movs || op == Op::stos, compares = destination && !writes;
  bool keepFlags = !flagsDead();
  RecordKind kind = keepFlags ? RecordKind::flagsSaved : RecordKind::instruction;
  if (keepFlags) saveFlags();

  std::uint64_t slow = cold_.here();
  recordCold(kind, g.offset);
  if (keepFlags) restoreFlagsCold();
  callStep(cold_, g);
  recordCold(RecordKind::instruction, g.offset + i.length);  // done
  std::uint32_t stepped = cold_.jmp();

  goesUp(slow);
  if (source) probeElement(host::group, host::rsi, {bytes, false, false}, kind);
  if (destination) probeElement(host::addend, host::rdi, {bytes, writes, false}, kind);
  if (keepFlags) restoreFlags();

  constexpr auto less = -static_cast<std::int32_t>(kTlbValid);
  Mem from{.base = host::rsi, .index = host::group, .displacement = less};
  Mem to{.base = host::rdi, .index = host::addend, .displacement = less};
  std::uint8_t value = op == Op::movs || op == Op::cmps ? host::address : host::rax;
  if (source) hot_.load(bytes, value, from);
  if (writes) hot_.store(bytes, to, value);
  if (compares) hot_.legacy(bytes, 0, bytes == 1 ? kCmpByte : kCmpByte + 1, value, to);
  committing();
  auto step = static_cast<std::int32_t>(bytes);
  if (source) hot_.lea(word(), host::rsi, Mem{.base = host::rsi, .displacement = step});
  if (destination) hot_.lea(word(), host::rdi, Mem{.base = host::rdi, .displacement = step});
  cold_.patchTo(stepped, hot_.here());
  return true;
}

}  // namespace lodge::translate
