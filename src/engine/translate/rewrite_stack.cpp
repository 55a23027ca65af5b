// SPDX-License-Identifier: Apache-2.0
// PUSH, POP, LEAVE. The store or load is what may fault; the stack pointer moves after it.
#include "engine/translate/rewriter.h"

namespace lodge::translate {

using namespace x86;

void Rewriter::moveStackPointer(Assembler& a, std::int32_t bytes) {
  a.lea(word(), host::guestRsp, Mem{.base = host::guestRsp, .displacement = bytes});
}

void Rewriter::finishPush() {
  committing();
  moveStackPointer(-static_cast<std::int32_t>(word()));
}

void Rewriter::storeWord(Mem to, std::uint64_t value) {
  if (word() == 4 || static_cast<std::int64_t>(value) == static_cast<std::int32_t>(value)) {
    hot_.storeImmediate32(word(), to, static_cast<std::int32_t>(value));
  } else {
    std::uint8_t spare = spareBeside(to);
    hot_.movImmediate(spare, value);
    hot_.store(8, to, spare);
  }
}

bool Rewriter::push(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  auto slotBelow = -static_cast<std::int32_t>(word());
  if (i.info->form == Form::i) {
    storeWord(stackOperand(slotBelow, true), i.immediate);
    finishPush();
    return true;
  }
  if (i.memory) {
    Mem from = operand(i);
    hot_.load(word(), host::addend, from);
    hot_.store(8, atState(FRAME_SPARE), host::addend);  // the next probe needs the register
  }
  Mem to = stackOperand(slotBelow, true);
  std::uint8_t from = hostOf(i.rm);
  if (i.memory || isSpilled(i.rm)) {
    from = spareBeside(to);
    hot_.load(8, from, i.memory ? atState(FRAME_SPARE) : slot(i.rm));
  }
  hot_.store(word(), to, from);
  finishPush();
  return true;
}

bool Rewriter::pop(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.memory) return false;
  Mem from = stackOperand(0, false);
  if (i.rm == rsp) {  // the increment comes before the value
    hot_.load(word(), host::guestRsp, from);
    return true;
  }
  if (isSpilled(i.rm)) {
    hot_.load(8, host::addend, from);
    hot_.store(8, slot(i.rm), host::addend);
  } else {
    hot_.load(word(), hostOf(i.rm), from);
  }
  committing();
  moveStackPointer(static_cast<std::int32_t>(word()));
  return true;
}

bool Rewriter::leave() {
  Mem from{.base = host::rbp, .index = host::group, .displacement = -static_cast<std::int32_t>(kTlbValid)};
  if (!groups_.stackMember[index_]) from = probe(host::rbp, {word(), false, false});
  hot_.lea(word(), host::address, Mem{.base = host::rbp, .displacement = static_cast<std::int32_t>(word())});
  hot_.load(word(), host::rbp, from);
  committing();
  hot_.mov(8, host::guestRsp, host::address);
  return true;
}

}  // namespace lodge::translate
