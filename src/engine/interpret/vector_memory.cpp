// SPDX-License-Identifier: Apache-2.0
// Gathers, masked loads and stores, MASKMOVQ and MASKMOVDQU: element by element, with no fault where the mask says no
// access.
#include "base/bytes.h"
#include "engine/interpret/evex_memory.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/vector_state.h"
#include "x86/vector_state.h"

namespace lodge::interpret {

namespace {

/// VMOVUPS, or VMOVDQU64, between vector register `number` and [rdi].
Instruction moveInstruction(unsigned number, unsigned bytes, bool store) {
  Instruction insn;
  if (bytes == 64) {
    const std::uint8_t evex[] = {
        0x62,
        static_cast<std::uint8_t>((number & 8 ? 0 : 0x80) | 0x60 | (number & 16 ? 0 : 0x10) | 1),
        0xfe,
        0x48,
        static_cast<std::uint8_t>(store ? 0x7f : 0x6f),
        static_cast<std::uint8_t>(7 | (number & 7) << 3)};
    x86::decode(evex, sizeof evex, x86::CodeSize::bits64, insn);
    return insn;
  }
  const std::uint8_t code[] = {
      0xc4, static_cast<std::uint8_t>(number < 8 ? 0xe1 : 0x61), static_cast<std::uint8_t>(bytes == 32 ? 0x7c : 0x78),
      static_cast<std::uint8_t>(store ? 0x11 : 0x10), static_cast<std::uint8_t>(7 | (number & 7) << 3)};
  x86::decode(code, sizeof code, x86::CodeSize::bits64, insn);
  return insn;
}

/// Bytes of a whole vector register on this host: what lies above an AVX2 instruction's result is kept at its fault.
unsigned registerBytes() {
  constexpr std::uint64_t kZmm = 0xe0;
  return (x86::vectorComponents() & kZmm) == kZmm ? 64 : 32;
}

/// MOVUPS [rdi], xmm or MOVQ [rdi], mm.
void storeLegacy(Cpu& cpu, unsigned number, bool mmx, void* to) {
  const std::uint8_t code[] = {static_cast<std::uint8_t>(number < 8 || mmx ? 0x40 : 0x44), 0x0f,
                               static_cast<std::uint8_t>(mmx ? 0x7f : 0x11),
                               static_cast<std::uint8_t>(7 | (number & 7) << 3)};
  Instruction insn;
  x86::decode(code, sizeof code, x86::CodeSize::bits64, insn);
  runOnBuffer(cpu, insn, to);
}

std::uint64_t element(const std::byte* v, unsigned i, unsigned size) {
  return size == 8 ? loadLe<std::uint64_t>(v + 8 * i) : loadLe<std::uint32_t>(v + 4 * i);
}
void setElement(std::byte* v, unsigned i, unsigned size, std::uint64_t value) {
  if (size == 8) {
    storeLe(v + 8 * i, value);
  } else {
    storeLe(v + 4 * i, static_cast<std::uint32_t>(value));
  }
}
bool selected(const std::byte* mask, unsigned i, unsigned size) {
  return (element(mask, i, size) >> (8 * size - 1)) & 1;
}

unsigned vectorBytes(const Decoded& d) {
  return 16u << d.insn.vexL;
}
/// VMASKMOVPS 2C and 2E, VMASKMOVPD 2D and 2F; VPMASKMOVD and Q by W.
unsigned maskedElementBytes(const Instruction& i) {
  bool floating = i.opcode < 0x30;
  return (floating ? (i.opcode & 1) != 0 : i.vexW) ? 8 : 4;
}

// --- gathers

bool readElement(Cpu& cpu, const Decoded& d, std::uint64_t offset, unsigned size, std::uint64_t& value) {
  std::uint64_t linear;
  return x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, size, Access::read, linear) &&
         x86::readFast(cpu, linear, size, value);
}

/// The registers at any point: elements done are in the destination and cleared in the mask, also when a fault ends it
/// early.
Outcome gather(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  unsigned bytes = vectorBytes(d), size = d.insn.vexW ? 8 : 4, indexSize = (d.insn.opcode & 1) ? 8 : 4;
  unsigned count = bytes / (size > indexSize ? size : indexSize);
  std::byte *target = c.vectors[0], *index = c.vectors[1], *mask = c.vectors[2];
  unsigned whole = registerBytes();
  storeVector(cpu, d.insn.reg, whole, target);
  storeVector(cpu, d.insn.index, bytes, index);
  storeVector(cpu, d.insn.vexV, whole, mask);
  NoAlignmentCheck noAlignmentCheck(cpu);
  std::uint64_t base = static_cast<std::uint64_t>(d.displacement);
  if (d.base != kNoOffset) base += qword(cpu, d.base);
  bool good = true;
  for (unsigned i = 0; good && i < count; ++i) {
    if (selected(mask, i, size)) {
      std::uint64_t scaled = indexSize == 8
                                 ? element(index, i, 8)
                                 : static_cast<std::uint64_t>(static_cast<std::int32_t>(element(index, i, 4)));
      std::uint64_t value = 0;
      good = readElement(cpu, d, (base + (scaled << d.scaleShift)) & d.addressMask, size, value);
      if (good) setElement(target, i, size, value);
    }
    if (good) setElement(mask, i, size, 0);
  }
  // At the end, not at a fault, both registers become zero beyond the elements.
  for (unsigned i = count * size; good && i < whole; i += 4) {
    setElement(target, i / 4, 4, 0);
    setElement(mask, i / 4, 4, 0);
  }
  loadVector(cpu, d.insn.reg, whole, target);
  loadVector(cpu, d.insn.vexV, whole, mask);
  return outcomeOf(good);
}

// --- VMASKMOVPS/PD, VPMASKMOVD/Q

Outcome maskedLoad(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  unsigned bytes = vectorBytes(d), size = maskedElementBytes(d.insn);
  std::byte *target = c.vectors[0], *mask = c.vectors[1];
  storeVector(cpu, d.insn.vexV, bytes, mask);
  NoAlignmentCheck noAlignmentCheck(cpu);
  std::uint64_t address = effectiveAddress(cpu, d);
  for (unsigned i = 0; i < bytes / size; ++i) {
    std::uint64_t value = 0;
    if (selected(mask, i, size) && !readElement(cpu, d, withinOperand(d, address, i * size), size, value))
      return Outcome::fault;
    setElement(target, i, size, value);
  }
  loadVector(cpu, d.insn.reg, bytes, target);
  return Outcome::next;
}

/// All selected elements are checked before the first is stored.
Outcome maskedStore(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  unsigned bytes = vectorBytes(d), size = maskedElementBytes(d.insn);
  std::byte *source = c.vectors[0], *mask = c.vectors[1];
  storeVector(cpu, d.insn.reg, bytes, source);
  storeVector(cpu, d.insn.vexV, bytes, mask);
  NoAlignmentCheck noAlignmentCheck(cpu);
  std::uint64_t address = effectiveAddress(cpu, d), linear[8];
  for (unsigned i = 0; i < bytes / size; ++i) {
    if (!selected(mask, i, size)) continue;
    std::uint64_t offset = withinOperand(d, address, i * size);
    if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, size, Access::write, linear[i]) ||
        !x86::probeLinear(cpu, linear[i], size, Access::write)) {
      return Outcome::fault;
    }
  }
  for (unsigned i = 0; i < bytes / size; ++i) {
    if (selected(mask, i, size) && !x86::writeLinear(cpu, linear[i], size, element(source, i, size)))
      return Outcome::fault;
  }
  return Outcome::next;
}

// --- MASKMOVQ, MASKMOVDQU: bytes to DS:rDI

Outcome maskmov(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  Context& c = contextOf(cpu);
  bool mmx = (d.insn.info->attributes & x86::attribute::mmx) != 0;
  std::byte *source = c.vectors[0], *mask = c.vectors[1];
  storeLegacy(cpu, d.insn.reg, mmx, source);
  storeLegacy(cpu, d.insn.rm, mmx, mask);
  unsigned bytes = mmx ? 8 : 16;
  std::uint64_t address = cpu.state.gpr[x86::rdi] & d.addressMask, linear[16];
  auto wanted = [&](unsigned i) { return (mask[i] & std::byte{0x80}) != std::byte{0}; };
  bool any = false;
  for (unsigned i = 0; i < bytes; ++i) {
    if (!wanted(i)) continue;
    any = true;
    std::uint64_t offset = withinOperand(d, address, i);
    if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, 1, Access::write, linear[i]))
      return Outcome::fault;
  }
  if (any && !checkAlignment(cpu, address, bytes)) return Outcome::fault;
  for (unsigned i = 0; i < bytes; ++i) {
    if (wanted(i) && !x86::probeLinear(cpu, linear[i], 1, Access::write)) return Outcome::fault;
  }
  for (unsigned i = 0; i < bytes; ++i) {
    if (wanted(i) && !x86::writeFast(cpu, linear[i], 1, static_cast<std::uint64_t>(source[i]))) return Outcome::fault;
  }
  return Outcome::next;
}

}  // namespace

void storeVector(Cpu& cpu, unsigned number, unsigned bytes, void* to) {
  runOnBuffer(cpu, moveInstruction(number, bytes, true), to);
}
void loadVector(Cpu& cpu, unsigned number, unsigned bytes, const void* from) {
  runOnBuffer(cpu, moveInstruction(number, bytes, false), const_cast<void*>(from));
}

Handler maskedHandler(const Instruction& i) {
  switch (i.info->op) {
    case x86::Op::gather:
      return i.encoding == x86::Encoding::evex ? &gatherByMask : &gather;
    case x86::Op::scatter:
      return &scatterByMask;
    case x86::Op::vmaskmov:
      return (i.info->attributes & x86::attribute::writesRm) != 0 ? &maskedStore : &maskedLoad;
    case x86::Op::maskmov:
      return &maskmov;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
