// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/x87_image.h"

#include "base/bytes.h"
#include "x86/cpu_model.h"

namespace lodge::interpret {

using x86::X87Pointers;

namespace {

template <class T>
T load(const std::byte* p) {
  return loadLe<T>(p);
}
template <class T>
void store(std::byte* p, std::uint64_t value) {
  storeLe(p, static_cast<T>(value));
}

/// Real-address and virtual-8086 mode have formats of their own, with linear addresses instead of selectors.
bool realFormat(const Cpu& cpu) {
  return !cpu.protectedMode() || cpu.virtual8086();
}

std::uint64_t linear20(std::uint16_t selector, std::uint64_t offset) {
  return (static_cast<std::uint64_t>(selector) << 4) + offset;
}

void storeWords(const Cpu& cpu, const X87Pointers& p, std::byte* image) {
  if (realFormat(cpu)) {
    std::uint64_t ip = linear20(p.cs, p.ip), dp = linear20(p.ds, p.dp);
    store<std::uint16_t>(image + 6, ip);
    store<std::uint16_t>(image + 8, (ip >> 16 & 0xf) << 12 | (p.opcode & 0x7ff));
    store<std::uint16_t>(image + 10, dp);
    store<std::uint16_t>(image + 12, (dp >> 16 & 0xf) << 12);
    return;
  }
  store<std::uint16_t>(image + 6, p.ip);
  store<std::uint16_t>(image + 8, p.cs);
  store<std::uint16_t>(image + 10, p.dp);
  store<std::uint16_t>(image + 12, p.ds);
}

void storeDoublewords(const Cpu& cpu, const X87Pointers& p, std::byte* image) {
  if (realFormat(cpu)) {
    std::uint64_t ip = linear20(p.cs, p.ip), dp = linear20(p.ds, p.dp);
    store<std::uint32_t>(image + 12, 0xffff0000 | (ip & 0xffff));
    store<std::uint32_t>(image + 16, (ip >> 16 & 0xffff) << 12 | (p.opcode & 0x7ff));
    store<std::uint32_t>(image + 20, 0xffff0000 | (dp & 0xffff));
    store<std::uint32_t>(image + 24, (dp >> 16 & 0xffff) << 12);
    return;
  }
  store<std::uint32_t>(image + 12, p.ip);
  store<std::uint32_t>(image + 16, p.cs | (p.opcode & 0x7ffu) << 16);
  store<std::uint32_t>(image + 20, p.dp);
  store<std::uint32_t>(image + 24, 0xffff0000u | p.ds);
}

X87Pointers readWords(bool real, const std::byte* image) {
  X87Pointers p{};
  p.ip = load<std::uint16_t>(image + 6);
  p.dp = load<std::uint16_t>(image + 10);
  std::uint16_t second = load<std::uint16_t>(image + 8), fourth = load<std::uint16_t>(image + 12);
  if (real) {
    p.ip |= static_cast<std::uint64_t>(second >> 12) << 16;
    p.dp |= static_cast<std::uint64_t>(fourth >> 12) << 16;
    p.opcode = second & 0x7ff;
  } else {
    p.cs = second;
    p.ds = fourth;
  }
  return p;
}

X87Pointers readDoublewords(bool real, const std::byte* image) {
  X87Pointers p{};
  auto ip = load<std::uint32_t>(image + 12), second = load<std::uint32_t>(image + 16);
  auto dp = load<std::uint32_t>(image + 20), fourth = load<std::uint32_t>(image + 24);
  if (real) {
    p.ip = (ip & 0xffff) | (second >> 12 & 0xffff) << 16;
    p.dp = (dp & 0xffff) | (fourth >> 12 & 0xffff) << 16;
    p.opcode = second & 0x7ff;
    return p;
  }
  p.ip = ip;
  p.cs = static_cast<std::uint16_t>(second);
  p.opcode = second >> 16 & 0x7ff;
  p.dp = dp;
  p.ds = static_cast<std::uint16_t>(fourth);
  return p;
}

/// From the 32-bit format to the 16-bit one, within the same 14 bytes and what follows.
void narrow(std::byte* image, unsigned registers) {
  store<std::uint16_t>(image + 2, load<std::uint16_t>(image + 4));
  store<std::uint16_t>(image + 4, load<std::uint16_t>(image + 8));
  for (unsigned i = 0; i < registers; i += 2) store<std::uint16_t>(image + 14 + i, load<std::uint16_t>(image + 28 + i));
}

}  // namespace

void loadPointers(Cpu& cpu, const Decoded& d, const std::byte* image) {
  cpu.x87 = d.insn.operandSize == 2 ? readWords(realFormat(cpu), image) : readDoublewords(realFormat(cpu), image);
}

void storePointers(Cpu& cpu, const Decoded& d, std::byte* image) {
  if (d.insn.operandSize != 2) return storeDoublewords(cpu, cpu.x87, image);
  bool registers = d.insn.info->memoryBytes == x86::memory_size::x87State;
  narrow(image, registers ? 80 : 0);
  storeWords(cpu, cpu.x87, image);
}

void loadAreaPointers(Cpu& cpu, bool wide, const std::byte* area) {
  X87Pointers& to = cpu.x87;
  to = X87Pointers{};
  to.opcode = load<std::uint16_t>(area + 6) & 0x7ff;
  if (wide) {
    to.ip = load<std::uint64_t>(area + 8);
    to.dp = load<std::uint64_t>(area + 16);
    return;
  }
  to.ip = load<std::uint32_t>(area + 8);
  to.cs = load<std::uint16_t>(area + 12);
  to.dp = load<std::uint32_t>(area + 16);
  to.ds = load<std::uint16_t>(area + 20);
}

void storeAreaPointers(Cpu& cpu, bool wide, std::byte* area) {
  X87Pointers p = cpu.x87;
  // AMD's processors store them only while an exception is pending (APM vol. 2, 11.4.4).
  bool pending = (load<std::uint16_t>(area + 2) & 0x80) != 0;
  if (!pending && cpu.model->vendor == x86::CpuVendor::amd) p = X87Pointers{};
  store<std::uint16_t>(area + 6, p.opcode);
  if (wide) {
    store<std::uint64_t>(area + 8, p.ip);
    store<std::uint64_t>(area + 16, p.dp);
    return;
  }
  store<std::uint32_t>(area + 8, p.ip);
  store<std::uint32_t>(area + 12, p.cs);
  store<std::uint32_t>(area + 16, p.dp);
  store<std::uint32_t>(area + 20, p.ds);
}

}  // namespace lodge::interpret
