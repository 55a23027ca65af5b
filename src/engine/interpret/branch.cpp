// SPDX-License-Identifier: Apache-2.0
// Near control flow. A target outside the code segment, or not canonical, faults on the branch (SDM vol. 2, JMP).
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Op;

/// Whether CS:target can be gone to; else #GP(0).
[[gnu::always_inline]] inline bool checkTarget(Cpu& cpu, bool code64, std::uint64_t target) {
  bool good = code64 ? x86::isCanonical(cpu, target) : target <= cpu.state.segment[x86::cs].limit;
  if (good) [[likely]]
    return true;
  return x86::raiseGp(cpu, 0);
}

[[gnu::always_inline]] inline std::uint64_t maskTarget(const Decoded& d, std::uint64_t target) {
  return d.insn.operandSize == 8 ? target : d.insn.operandSize == 4 ? target & 0xffffffff : target & 0xffff;
}

[[gnu::always_inline]] inline Outcome jumpTo(Cpu& cpu, const Decoded& d, std::uint64_t target) {
  target = maskTarget(d, target);
  if (!checkTarget(cpu, d.code64, target)) return Outcome::fault;
  cpu.state.rip = target;
  return Outcome::jumped;
}
[[gnu::always_inline]] inline Outcome jumpRelative(Cpu& cpu, const Decoded& d) {
  return jumpTo(cpu, d, cpu.state.rip + d.length + d.insn.immediate);
}

template <unsigned code>
Outcome jcc(Cpu& cpu, const Decoded& d) {
  return conditionHolds(cpu.state.rflags, code) ? jumpRelative(cpu, d) : Outcome::next;
}
constexpr Handler kJcc[16] = {&jcc<0>, &jcc<1>, &jcc<2>,  &jcc<3>,  &jcc<4>,  &jcc<5>,  &jcc<6>,  &jcc<7>,
                              &jcc<8>, &jcc<9>, &jcc<10>, &jcc<11>, &jcc<12>, &jcc<13>, &jcc<14>, &jcc<15>};

Outcome jump(Cpu& cpu, const Decoded& d) {
  return jumpRelative(cpu, d);
}

/// Count register by address size: CX, ECX (upper half cleared), RCX.
Outcome loop(Cpu& cpu, const Decoded& d) {
  std::uint64_t& rcx = cpu.state.gpr[x86::rcx];
  std::uint64_t count = (rcx - 1) & d.addressMask;
  bool zero = (cpu.state.rflags & x86::flag::zf) != 0;
  Op op = d.insn.info->op;
  bool taken = count != 0 && (op == Op::loop || zero == (op == Op::loope));
  Outcome outcome = taken ? jumpRelative(cpu, d) : Outcome::next;
  if (outcome != Outcome::fault) rcx = d.insn.addressSize == 2 ? (rcx & ~d.addressMask) | count : count;
  return outcome;
}
Outcome jcxz(Cpu& cpu, const Decoded& d) {
  return (cpu.state.gpr[x86::rcx] & d.addressMask) == 0 ? jumpRelative(cpu, d) : Outcome::next;
}

/// A bad target: a fault of the stack comes before its own.
template <class T>
[[gnu::noinline]] Outcome badCall(Cpu& cpu, const Decoded& d) {
  std::uint64_t linear, sp = (cpu.state.gpr[x86::rsp] - sizeof(T)) & stackMask(cpu, d.code64);
  bool stackFault = !checkedLinear(cpu, x86::ss, sp, sizeof(T), Access::write, linear) ||
                    !x86::probeLinear(cpu, linear, sizeof(T), Access::write);
  return outcomeOf(!stackFault && x86::raiseGp(cpu, 0));
}

template <class T>
Outcome callTo(Cpu& cpu, const Decoded& d, std::uint64_t target) {
  target = maskTarget(d, target);
  if (!checkTarget(cpu, d.code64, target)) [[unlikely]]
    return badCall<T>(cpu, d);
  if (!pushValue<T>(cpu, d.code64, static_cast<T>(cpu.state.rip + d.length))) return Outcome::fault;
  cpu.state.rip = target;
  return Outcome::jumped;
}
template <class T>
struct Call {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    return callTo<T>(cpu, d, cpu.state.rip + d.length + d.insn.immediate);
  }
};
template <class T>
struct CallIndirect {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T target;
    return readRm<T>(cpu, d, target) ? callTo<T>(cpu, d, target) : Outcome::fault;
  }
};
template <class T>
struct JumpIndirect {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T target;
    return readRm<T>(cpu, d, target) ? jumpTo(cpu, d, target) : Outcome::fault;
  }
};
template <class T>
struct Return {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T target;
    if (!peekStack<T>(cpu, d.code64, target) || !checkTarget(cpu, d.code64, target)) return Outcome::fault;
    dropStack(cpu, d.code64, sizeof(T) + d.insn.immediate);
    cpu.state.rip = target;
    return Outcome::jumped;
  }
};

}  // namespace

Handler branchHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::jcc:
      return kJcc[i.opcode & 15];
    case Op::jmp:
      return &jump;
    case Op::loop:
    case Op::loope:
    case Op::loopne:
      return &loop;
    case Op::jcxz:
      return &jcxz;
    case Op::call:
      return kBySize<Call>[size];
    case Op::call_indirect:
      return kBySize<CallIndirect>[size];
    case Op::jmp_indirect:
      return kBySize<JumpIndirect>[size];
    case Op::ret:
      return kBySize<Return>[size];
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
