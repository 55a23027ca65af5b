// SPDX-License-Identifier: Apache-2.0
// PUSH, POP, PUSHA, POPA, ENTER, LEAVE. (PUSHF and POPF are in system.cpp, POP of a segment register in segment.cpp.)
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

template <class T>
struct PushReg {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    return outcomeOf(pushValue<T>(cpu, d.code64, readReg<T>(cpu, d.rm)));
  }
};
template <class T>
struct PushImmediate {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    return outcomeOf(pushValue<T>(cpu, d.code64, static_cast<T>(d.insn.immediate)));
  }
};
template <class T>
struct PushMemory {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T value;
    return outcomeOf(readMemory<T>(cpu, d, value) && pushValue<T>(cpu, d.code64, value));
  }
};
template <class T>
struct PopReg {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T value;
    if (!peekStack<T>(cpu, d.code64, value)) return Outcome::fault;
    dropStack(cpu, d.code64, sizeof(T));
    writeReg<T>(cpu, d.rm, value);  // after RSP moved: POP RSP gets the value
    return Outcome::next;
  }
};
/// An address that uses RSP sees it moved (SDM vol. 2, POP).
template <class T>
struct PopMemory {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T value;
    if (!peekStack<T>(cpu, d.code64, value)) return Outcome::fault;
    std::uint64_t before = cpu.state.gpr[x86::rsp];
    dropStack(cpu, d.code64, sizeof(T));
    if (writeMemory<T>(cpu, d, value)) return Outcome::next;
    cpu.state.gpr[x86::rsp] = before;
    return Outcome::fault;
  }
};

/// The upper half of a doubleword or quadword is stored as zero.
Outcome pushSegment(Cpu& cpu, const Decoded& d) {
  return outcomeOf(pushSized(cpu, d.code64, d.insn.operandSize, cpu.state.segment[d.reg].selector));
}

/// All eight slots are checked before the first is written.
template <class T>
Outcome pusha(Cpu& cpu, const Decoded&) {
  std::uint64_t mask = stackMask(cpu, false);
  std::uint64_t top = cpu.state.gpr[x86::rsp];
  std::uint64_t linear[8];
  for (unsigned i = 0; i < 8; ++i) {
    std::uint64_t offset = (top - (i + 1) * sizeof(T)) & mask;
    if (!checkedLinear(cpu, x86::ss, offset, sizeof(T), Access::write, linear[i])) return Outcome::fault;
    if (!x86::probeLinear(cpu, linear[i], sizeof(T), Access::write)) return Outcome::fault;
  }
  for (unsigned i = 0; i < 8; ++i) {
    if (!x86::writeLinear(cpu, linear[i], sizeof(T), static_cast<T>(cpu.state.gpr[i]))) return Outcome::fault;
  }
  setStackPointer(cpu, mask, top - 8 * sizeof(T));
  return Outcome::next;
}

/// The stored stack pointer is skipped.
template <class T>
Outcome popa(Cpu& cpu, const Decoded& d) {
  T value[8];
  for (unsigned i = 0; i < 8; ++i) {
    if (!peekStack<T>(cpu, d.code64, value[7 - i], i * sizeof(T))) return Outcome::fault;
  }
  for (unsigned i = 0; i < 8; ++i) {
    if (i != x86::rsp) writeReg<T>(cpu, static_cast<std::uint16_t>(offsetof(CpuState, gpr) + 8 * i), value[i]);
  }
  dropStack(cpu, d.code64, 8 * sizeof(T));
  return Outcome::next;
}

/// ENTER (SDM vol. 2): the frame pointers of the outer levels are copied. RSP and RBP change last.
template <class T>
struct Enter {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    CpuState& s = cpu.state;
    std::uint64_t mask = stackMask(cpu, d.code64), before = s.gpr[x86::rsp];
    unsigned level = d.insn.immediate2 & 31;
    bool good = pushValue<T>(cpu, d.code64, static_cast<T>(s.gpr[x86::rbp]));
    std::uint64_t frame = s.gpr[x86::rsp];
    for (unsigned i = 1; good && i < level; ++i) {
      T outer;
      good = readAt<T>(cpu, d.code64, x86::ss, (s.gpr[x86::rbp] - i * sizeof(T)) & mask, outer) &&
             pushValue<T>(cpu, d.code64, outer);
    }
    if (good && level > 0) good = pushValue<T>(cpu, d.code64, static_cast<T>(frame));
    if (good) {
      setStackPointer(cpu, mask, s.gpr[x86::rsp] - d.insn.immediate);
      // The new top must be writable; nothing is written.
      std::uint64_t linear;
      good = checkedLinear(cpu, x86::ss, s.gpr[x86::rsp] & mask, sizeof(T), Access::write, linear) &&
             x86::probeLinear(cpu, linear, sizeof(T), Access::write);
    }
    if (!good) {
      s.gpr[x86::rsp] = before;
      return Outcome::fault;
    }
    writeReg<T>(cpu, offsetof(CpuState, gpr) + 8 * x86::rbp, static_cast<T>(frame));
    return Outcome::next;
  }
};

template <class T>
struct Leave {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    CpuState& s = cpu.state;
    std::uint64_t mask = stackMask(cpu, d.code64);
    T value;
    if (!readAt<T>(cpu, d.code64, x86::ss, s.gpr[x86::rbp] & mask, value)) return Outcome::fault;
    setStackPointer(cpu, mask, s.gpr[x86::rbp] + sizeof(T));
    writeReg<T>(cpu, offsetof(CpuState, gpr) + 8 * x86::rbp, value);
    return Outcome::next;
  }
};

Handler pickPush(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->form) {
    case Form::sreg:
      return &pushSegment;
    case Form::i:
      return kBySize<PushImmediate>[size];
    case Form::e:
      return i.memory ? kBySize<PushMemory>[size] : kBySize<PushReg>[size];
    default:
      return kBySize<PushReg>[size];
  }
}

}  // namespace

Handler stackHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::push:
      return pickPush(i);
    case Op::pop:
      if (i.info->form == Form::sreg) return nullptr;
      return i.memory ? kBySize<PopMemory>[size] : kBySize<PopReg>[size];
    case Op::pusha:
      return size == 1 ? &pusha<std::uint16_t> : &pusha<std::uint32_t>;
    case Op::popa:
      return size == 1 ? &popa<std::uint16_t> : &popa<std::uint32_t>;
    case Op::enter:
      return kBySize<Enter>[size];
    case Op::leave:
      return kBySize<Leave>[size];
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
