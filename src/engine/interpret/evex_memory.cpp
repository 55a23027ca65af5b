// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/evex_memory.h"

#include "base/bytes.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/thunk.h"
#include "engine/interpret/vector_state.h"

namespace lodge::interpret {

namespace {

Instruction decoded(const std::uint8_t* code, unsigned length) {
  Instruction insn;
  x86::decode(code, length, x86::CodeSize::bits64, insn);
  return insn;
}

/// KMOVQ between mask register `number` and [rdi].
void moveMask(Cpu& cpu, unsigned number, bool store, std::uint64_t& value) {
  const std::uint8_t code[] = {0xc4, 0xe1, 0xf8, static_cast<std::uint8_t>(store ? 0x91 : 0x90),
                               static_cast<std::uint8_t>(7 | number << 3)};
  runOnBuffer(cpu, decoded(code, sizeof code), &value);
}
std::uint64_t maskRegister(Cpu& cpu, unsigned number) {
  std::uint64_t value = 0;
  moveMask(cpu, number, true, value);
  return value;
}

std::uint64_t loadElement(const std::byte* p, unsigned size) {
  return x86::loadHost(p, size);
}

bool readElement(Cpu& cpu, const Decoded& d, std::uint64_t offset, unsigned size, std::byte* to) {
  std::uint64_t linear, value;
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, size, Access::read, linear) ||
      !x86::readFast(cpu, linear, size, value))
    return false;
  x86::storeHost(to, size, value);
  return true;
}

/// Checks an element that will be written.
bool probeElement(Cpu& cpu, const Decoded& d, std::uint64_t offset, unsigned size, std::uint64_t& linear) {
  return x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, size, Access::write, linear) &&
         x86::probeLinear(cpu, linear, size, Access::write);
}

/// Runs the instruction with `buffer` for its memory operand. False: a floating-point exception is pending.
bool runThunk(Cpu& cpu, const Decoded& d, std::byte* buffer) {
  const Thunk& t = *static_cast<const Thunk*>(d.native);
  std::uint64_t registers[3] = {}, flags = 0x202;
  cpu.unparkFpu();
  std::uint64_t raised = t.entry(buffer, registers, &flags);
  return raised == 0 || raiseFloatingPoint(cpu, raised);
}

/// Elements in memory, and how many bits of the mask go with them: more if they are broadcast.
struct Elements {
  unsigned size, count, maskBits;
};
Elements elementsOf(const Instruction& i) {
  unsigned size = i.info->elementBytes;
  Elements e{size, x86::memoryOperand(i).bytes / size, 0};
  e.maskBits = e.count;
  bool broadcast = i.map == 2 && ((i.opcode >= 0x18 && i.opcode <= 0x1b) || (i.opcode >= 0x58 && i.opcode <= 0x5b) ||
                                  i.opcode == 0x78 || i.opcode == 0x79);
  if (broadcast) {
    e.maskBits = (16u << i.vexL) / size;
  } else if (i.evexB) {
    Instruction whole = i;
    whole.evexB = false;
    e.maskBits = x86::memoryOperand(whole).bytes / size;
  }
  return e;
}

/// Which elements in memory are accessed, as bits.
std::uint64_t accessed(const Elements& e, std::uint64_t mask) {
  std::uint64_t set = 0;
  for (unsigned i = 0; i < e.maskBits; ++i) {
    if ((mask >> i) & 1) set |= std::uint64_t{1} << (i % e.count);
  }
  return set;
}

unsigned countBits(std::uint64_t mask, unsigned among) {
  unsigned count = 0;
  for (unsigned i = 0; i < among; ++i) count += (mask >> i) & 1;
  return count;
}

Outcome maskedStore(Cpu& cpu, const Decoded& d, std::uint64_t offset, const Elements& e, std::uint64_t set) {
  std::uint64_t linear[64];
  bool suppresses = (d.insn.info->attributes & x86::attribute::suppressesFaults) != 0;
  for (unsigned i = 0; i < e.count; ++i) {
    if ((!suppresses || ((set >> i) & 1)) &&
        !probeElement(cpu, d, withinOperand(d, offset, i * e.size), e.size, linear[i]))
      return Outcome::fault;
  }
  std::byte* area = contextOf(cpu).area;
  if (!runThunk(cpu, d, area)) return Outcome::fault;
  for (unsigned i = 0; i < e.count; ++i) {
    if (((set >> i) & 1) && !x86::writeLinear(cpu, linear[i], e.size, loadElement(area + i * e.size, e.size)))
      return Outcome::fault;
  }
  return Outcome::next;
}

}  // namespace

Outcome maskedElements(Cpu& cpu, const Decoded& d) {
  std::uint64_t offset = effectiveAddress(cpu, d);
  const Thunk& t = *static_cast<const Thunk*>(d.native);
  Elements e = elementsOf(d.insn);
  std::uint64_t set = accessed(e, maskRegister(cpu, d.insn.opmask));
  std::uint64_t segmentBase = d.code64 && d.segment < x86::fs ? 0 : cpu.state.segment[d.segment].base;
  bool misaligned = t.aligned && ((segmentBase + offset) & (t.bytes - 1u)) != 0;
  if (misaligned && set != 0) return outcomeOf(x86::raiseGp(cpu, 0));
  if ((d.insn.info->attributes & x86::attribute::writesRm) != 0) return maskedStore(cpu, d, offset, e, set);
  std::byte* area = contextOf(cpu).area;
  for (unsigned i = 0; i < e.count; ++i) {
    x86::storeHost(area + i * e.size, e.size, 0);
    if (((set >> i) & 1) && !readElement(cpu, d, withinOperand(d, offset, i * e.size), e.size, area + i * e.size))
      return Outcome::fault;
  }
  return outcomeOf(runThunk(cpu, d, area));
}

Outcome runPacked(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  unsigned size = d.insn.info->elementBytes, among = (16u << d.insn.vexL) / size;
  unsigned count = countBits(maskRegister(cpu, d.insn.opmask), among);
  std::byte* area = contextOf(cpu).area;
  std::uint64_t offset = effectiveAddress(cpu, d), linear[64];
  bool store = (d.insn.info->attributes & x86::attribute::writesRm) != 0;
  for (unsigned i = 0; i < count; ++i) {
    std::uint64_t at = withinOperand(d, offset, i * size);
    bool good = store ? probeElement(cpu, d, at, size, linear[i]) : readElement(cpu, d, at, size, area + i * size);
    if (!good) return Outcome::fault;
  }
  if (!runThunk(cpu, d, area)) return Outcome::fault;
  for (unsigned i = 0; store && i < count; ++i) {
    if (!x86::writeLinear(cpu, linear[i], size, loadElement(area + i * size, size))) return Outcome::fault;
  }
  return Outcome::next;
}

namespace {

/// A gather's or scatter's elements.
struct Indexed {
  unsigned size, indexSize, count;
  std::uint64_t base;
};
Indexed indexedOf(Cpu& cpu, const Decoded& d) {
  unsigned size = d.insn.vexW ? 8 : 4, indexSize = (d.insn.opcode & 1) ? 8 : 4;
  Indexed v{size, indexSize, (16u << d.insn.vexL) / (size > indexSize ? size : indexSize),
            static_cast<std::uint64_t>(d.displacement)};
  if (d.base != kNoOffset) v.base += qword(cpu, d.base);
  return v;
}
std::uint64_t offsetOf(const Indexed& v, const Decoded& d, const std::byte* index, unsigned i) {
  std::uint64_t n = v.indexSize == 8 ? loadLe<std::uint64_t>(index + 8 * i)
                                     : static_cast<std::uint64_t>(std::int64_t{loadLe<std::int32_t>(index + 4 * i)});
  return (v.base + (n << d.scaleShift)) & d.addressMask;
}

}  // namespace

/// At any point elements done are in the destination and cleared in the mask, also when a fault ends it early.
Outcome gatherByMask(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  Indexed v = indexedOf(cpu, d);
  std::byte *target = c.vectors[0], *index = c.vectors[1];
  storeVector(cpu, d.insn.reg, 64, target);
  storeVector(cpu, d.insn.index, 64, index);
  std::uint64_t mask = maskRegister(cpu, d.insn.opmask);
  NoAlignmentCheck noAlignmentCheck(cpu);
  bool good = true;
  for (unsigned i = 0; good && i < v.count; ++i) {
    std::uint64_t bit = std::uint64_t{1} << i;
    if ((mask & bit) != 0) good = readElement(cpu, d, offsetOf(v, d, index, i), v.size, target + i * v.size);
    if (good) mask &= ~bit;
  }
  for (unsigned i = v.count * v.size; good && i < 64; i += 4) storeLe(target + i, std::uint32_t{0});
  if (good) mask = 0;
  loadVector(cpu, d.insn.reg, 64, target);
  moveMask(cpu, d.insn.opmask, false, mask);
  return outcomeOf(good);
}

Outcome scatterByMask(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  Indexed v = indexedOf(cpu, d);
  std::byte *source = c.vectors[0], *index = c.vectors[1];
  storeVector(cpu, d.insn.reg, 64, source);
  storeVector(cpu, d.insn.index, 64, index);
  std::uint64_t mask = maskRegister(cpu, d.insn.opmask);
  NoAlignmentCheck noAlignmentCheck(cpu);
  bool good = true;
  for (unsigned i = 0; good && i < v.count; ++i) {
    std::uint64_t bit = std::uint64_t{1} << i, linear;
    if ((mask & bit) != 0) {
      good = probeElement(cpu, d, offsetOf(v, d, index, i), v.size, linear) &&
             x86::writeLinear(cpu, linear, v.size, loadElement(source + i * v.size, v.size));
    }
    if (good) mask &= ~bit;
  }
  if (good) mask = 0;
  moveMask(cpu, d.insn.opmask, false, mask);
  return outcomeOf(good);
}

}  // namespace lodge::interpret
