// SPDX-License-Identifier: Apache-2.0
// IN, OUT, INS, OUTS.
#include "engine/interpret/handlers.h"
#include "engine/interpret/string_registers.h"

namespace lodge::interpret {
namespace {

using x86::Op;

std::uint16_t portOf(Cpu& cpu, const Decoded& d) {
  bool immediate = d.insn.info->immediate == x86::Immediate::byte;
  return static_cast<std::uint16_t>(immediate ? d.insn.immediate : cpu.state.gpr[x86::rdx]);
}

/// 64-bit operand size does not exist here: REX.W is ignored.
unsigned portSize(const Decoded& d) {
  return d.insn.operandSize == 8 ? 4 : d.insn.operandSize;
}

std::uint64_t readPort(Cpu& cpu, std::uint16_t port, unsigned size) {
  x86::WorkMark mark(cpu, x86::Work::device);
  std::uint64_t value = 0;
  if (cpu.environment->readPortLive(port, size, value)) return value;
  cpu.parkFpu();
  return cpu.environment->readPort(port, size);
}
void writePort(Cpu& cpu, std::uint16_t port, unsigned size, std::uint64_t value) {
  x86::WorkMark mark(cpu, x86::Work::device);
  if (cpu.environment->writePortLive(port, size, value)) return;
  cpu.parkFpu();
  cpu.environment->writePort(port, size, value);
}

Outcome in(Cpu& cpu, const Decoded& d) {
  std::uint16_t port = portOf(cpu, d);
  unsigned size = portSize(d);
  if (!x86::checkIoPermission(cpu, port, size)) return Outcome::fault;
  writeRegSized(cpu, offsetof(CpuState, gpr), size, readPort(cpu, port, size));
  return Outcome::next;
}

Outcome out(Cpu& cpu, const Decoded& d) {
  std::uint16_t port = portOf(cpu, d);
  unsigned size = portSize(d);
  if (!x86::checkIoPermission(cpu, port, size)) return Outcome::fault;
  writePort(cpu, port, size, readRegSized(cpu, offsetof(CpuState, gpr), size));
  return Outcome::next;
}

/// The destination is checked before the port is read: what a device gave must not be lost to a fault.
bool insOne(Cpu& cpu, const Decoded& d, std::uint16_t port, unsigned size) {
  StringRegisters r(cpu, d);
  std::uint64_t linear;
  if (!checkedLinear(cpu, x86::es, r.di(), size, Access::write, linear)) return false;
  if (!x86::probeLinear(cpu, linear, size, Access::write)) return false;
  if (!x86::writeLinear(cpu, linear, size, readPort(cpu, port, size))) return false;
  r.advance(false, true, r.step(size));
  return true;
}

bool outsOne(Cpu& cpu, const Decoded& d, std::uint16_t port, unsigned size) {
  StringRegisters r(cpu, d);
  std::uint64_t value;
  if (!readSlow(cpu, d.segment, r.si(), size, value)) return false;
  writePort(cpu, port, size, value);
  r.advance(true, false, r.step(size));
  return true;
}

constexpr unsigned kRepeatBudget = 256;

template <bool input>
Outcome portString(Cpu& cpu, const Decoded& d) {
  auto port = static_cast<std::uint16_t>(cpu.state.gpr[x86::rdx]);
  unsigned size = portSize(d);
  StringRegisters r(cpu, d);
  if (!x86::checkIoPermission(cpu, port, size)) return Outcome::fault;  // also with a count of 0
  auto one = [&] { return input ? insOne(cpu, d, port, size) : outsOne(cpu, d, port, size); };
  if (d.insn.repeat == 0) return outcomeOf(one());
  unsigned budget = (cpu.state.rflags & x86::flag::tf) != 0 ? 1 : kRepeatBudget;
  while (r.count() != 0) {
    if (budget-- == 0) return Outcome::again;
    if (!one()) return Outcome::fault;
    r.setCount(r.count() - 1);
  }
  return Outcome::next;
}

}  // namespace

Handler ioHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::in:
      return &in;
    case Op::out:
      return &out;
    case Op::ins:
      return &portString<true>;
    case Op::outs:
      return &portString<false>;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
