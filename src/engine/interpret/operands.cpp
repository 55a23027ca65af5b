// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/operands.h"

namespace lodge::interpret {

bool checkAlignment(Cpu& cpu, std::uint64_t linear, unsigned alignment) {
  if ((cpu.state.rflags & x86::flag::ac) == 0 || cpu.state.cpl != 3 || (cpu.state.cr0 & x86::cr0::am) == 0) return true;
  return (linear & (alignment - 1)) == 0 || x86::raise(cpu, x86::Vector::ac, 0);
}

bool checkedLinear(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, Access access,
                   std::uint64_t& linear) {
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(segment), offset, size, access, linear)) return false;
  return checkAlignment(cpu, linear, size);
}

bool readSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, std::uint64_t& value) {
  std::uint64_t linear;
  return checkedLinear(cpu, segment, offset, size, Access::read, linear) && x86::readLinear(cpu, linear, size, value);
}

bool writeSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::uint64_t linear;
  return checkedLinear(cpu, segment, offset, size, Access::write, linear) && x86::writeLinear(cpu, linear, size, value);
}

bool prepareRmwSlow(Cpu& cpu, unsigned segment, std::uint64_t offset, unsigned size, RmwSlot& slot) {
  if (!checkedLinear(cpu, segment, offset, size, Access::write, slot.linear)) return false;
  cpu.exception.valid = false;
  slot.inCpuView = false;
  slot.host = x86::writablePointer(cpu, slot.linear, size);
  return slot.host || !cpu.exception.valid;
}

std::uint64_t readRegSized(Cpu& cpu, std::uint16_t offset, unsigned size) {
  switch (size) {
    case 1:
      return readReg<std::uint8_t>(cpu, offset);
    case 2:
      return readReg<std::uint16_t>(cpu, offset);
    case 4:
      return readReg<std::uint32_t>(cpu, offset);
    default:
      return readReg<std::uint64_t>(cpu, offset);
  }
}

void writeRegSized(Cpu& cpu, std::uint16_t offset, unsigned size, std::uint64_t value) {
  switch (size) {
    case 1:
      return writeReg(cpu, offset, static_cast<std::uint8_t>(value));
    case 2:
      return writeReg(cpu, offset, static_cast<std::uint16_t>(value));
    case 4:
      return writeReg(cpu, offset, static_cast<std::uint32_t>(value));
    default:
      return writeReg(cpu, offset, value);
  }
}

bool readRmSized(Cpu& cpu, const Decoded& d, unsigned size, std::uint64_t& value) {
  if (d.insn.memory) return readSlow(cpu, d.segment, effectiveAddress(cpu, d), size, value);
  value = readRegSized(cpu, d.rm, size);
  return true;
}

bool writeRmSized(Cpu& cpu, const Decoded& d, unsigned size, std::uint64_t value) {
  if (d.insn.memory) return writeSlow(cpu, d.segment, effectiveAddress(cpu, d), size, value);
  writeRegSized(cpu, d.rm, size, value);
  return true;
}

bool pushSized(Cpu& cpu, bool code64, unsigned size, std::uint64_t value) {
  switch (size) {
    case 2:
      return pushValue(cpu, code64, static_cast<std::uint16_t>(value));
    case 4:
      return pushValue(cpu, code64, static_cast<std::uint32_t>(value));
    default:
      return pushValue(cpu, code64, value);
  }
}

bool peekSized(Cpu& cpu, bool code64, unsigned size, std::uint64_t& value, std::uint64_t depth) {
  std::uint64_t sp = (cpu.state.gpr[x86::rsp] + depth) & stackMask(cpu, code64);
  std::uint64_t linear;
  if (quickLinear<Access::read>(cpu, code64, x86::ss, sp, size, linear)) {
    if (const std::byte* p = x86::tlbReadable(cpu, linear, size, x86::currentRights(cpu))) {
      value = x86::loadHost(p, size);
      return true;
    }
  }
  return readSlow(cpu, x86::ss, sp, size, value);
}

}  // namespace lodge::interpret
