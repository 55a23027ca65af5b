// SPDX-License-Identifier: Apache-2.0
// PUSH, POP, LEAVE. The store or load is what may fault; the stack pointer moves after it.
#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;
constexpr std::int32_t kWord = 8;
}  // namespace

/// Address and probe for a push: the returned operand is where the value goes; r12 becomes the new stack pointer.
Mem Rewriter::pushOperand() {
  hot_.lea(8, host::address, Mem{.base = host::guestRsp, .displacement = -kWord});
  return probe(host::address, {kWord, true, false});
}

void Rewriter::finishPush() {
  committing();
  hot_.mov(8, host::guestRsp, host::address);
}

void Rewriter::storeConstant(const Mem& to, std::uint64_t value) {
  if (static_cast<std::int64_t>(value) == static_cast<std::int32_t>(value)) {
    hot_.storeImmediate32(8, to, static_cast<std::int32_t>(value));
  } else {
    hot_.movImmediate(host::temp, value);
    hot_.store(8, to, host::temp);
  }
}

bool Rewriter::push(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  switch (i.info->form) {
    case Form::i: {
      Mem to = pushOperand();
      storeConstant(to, i.immediate);
      finishPush();
      return true;
    }
    case Form::z:
    case Form::e: {
      if (i.memory) {
        Mem from = probeOperand(i);
        hot_.load(8, host::temp, from);
        hot_.store(8, atState(FRAME_SPARE), host::temp);  // probe() may need r14
        Mem to = pushOperand();
        hot_.load(8, host::temp, atState(FRAME_SPARE));
        hot_.store(8, to, host::temp);
      } else {
        Mem to = pushOperand();
        std::uint8_t from = hostOf(i.rm);
        if (isSpilled(i.rm)) {
          from = host::temp;
          hot_.load(8, from, slot(i.rm));
        }
        hot_.store(8, to, from);
      }
      finishPush();
      return true;
    }
    default:
      return false;
  }
}

bool Rewriter::pop(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.memory) return false;
  Mem from = probe(host::guestRsp, {kWord, false, false});
  if (i.rm == rsp) {  // the increment comes before the value
    hot_.load(8, host::guestRsp, from);
    return true;
  }
  if (isSpilled(i.rm)) {
    hot_.load(8, host::temp, from);
    hot_.store(8, slot(i.rm), host::temp);
  } else {
    hot_.load(8, hostOf(i.rm), from);
  }
  committing();
  hot_.lea(8, host::guestRsp, Mem{.base = host::guestRsp, .displacement = kWord});
  return true;
}

bool Rewriter::leave() {
  Mem from = probe(host::rbp, {kWord, false, false});
  hot_.lea(8, host::address, Mem{.base = host::rbp, .displacement = kWord});
  hot_.load(8, host::rbp, from);
  committing();
  hot_.mov(8, host::guestRsp, host::address);
  return true;
}

}  // namespace lodge::translate
