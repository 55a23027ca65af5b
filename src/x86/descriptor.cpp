// SPDX-License-Identifier: Apache-2.0
#include "x86/descriptor.h"

#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

std::uint64_t wrapped(const Cpu& cpu, std::uint64_t address) {
  return cpu.longMode() ? address : address & 0xffff'ffff;
}

// Locked change of the type byte, as the processor's own writes of descriptors are.
bool changeTypeByte(Cpu& cpu, std::uint16_t selector, std::uint8_t set, std::uint8_t clear) {
  std::uint64_t address = wrapped(cpu, descriptorAddress(cpu, selector) + 5);
  ResolvedPage page;
  if (!resolvePage(cpu, address, Access::write, Rights::supervisor, page)) return false;
  if (!page.host) return true;
  auto* byte = reinterpret_cast<std::uint8_t*>(page.host);
  if (set != 0) __atomic_fetch_or(byte, set, __ATOMIC_SEQ_CST);
  if (clear != 0) __atomic_fetch_and(byte, static_cast<std::uint8_t>(~clear), __ATOMIC_SEQ_CST);
  wroteTo(cpu, page.host, 1);
  return true;
}

}  // namespace

SegmentRegister toSegment(const Descriptor& descriptor, std::uint16_t selector) {
  return {descriptor.base(), descriptor.limit(), selector, descriptor.attributes()};
}

SegmentRegister nullSegment(std::uint16_t selector, unsigned dpl) {
  return {0, 0, selector, static_cast<std::uint16_t>(dpl << 5)};
}

SegmentRegister realSegment(std::uint16_t selector, unsigned dpl) {
  return {std::uint64_t{selector} << 4, 0xffff, selector, static_cast<std::uint16_t>(0x93 | dpl << 5)};
}

std::uint64_t descriptorAddress(const Cpu& cpu, std::uint16_t selector) {
  std::uint64_t base = (selector & 4) == 0 ? cpu.state.gdtr.base : cpu.state.ldtr.base;
  return wrapped(cpu, base + (selector & 0xfff8u));
}

bool insideTable(const Cpu& cpu, std::uint16_t selector, unsigned size) {
  std::uint32_t last = (selector & 0xfff8u) + size - 1;
  if ((selector & 4) == 0) return last <= cpu.state.gdtr.limit;
  return cpu.state.ldtr.present() && last <= cpu.state.ldtr.limit;
}

bool readDescriptor(Cpu& cpu, std::uint16_t selector, Descriptor& out, Vector outside, std::uint32_t ext) {
  if (!insideTable(cpu, selector, 8)) return raise(cpu, outside, selectorCode(selector) | ext);
  out.high = 0;
  return readSystem(cpu, descriptorAddress(cpu, selector), 8, out.low);
}

bool readDescriptorHigh(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor, Vector outside, std::uint32_t ext) {
  if (!insideTable(cpu, selector, 16)) return raise(cpu, outside, selectorCode(selector) | ext);
  std::uint64_t high = 0;
  if (!readSystem(cpu, wrapped(cpu, descriptorAddress(cpu, selector) + 8), 8, high)) return false;
  if (((high >> 40) & 31) != 0) return raise(cpu, outside, selectorCode(selector) | ext);
  descriptor.high = high & 0xffff'ffff;
  return true;
}

bool readSystemDescriptor(Cpu& cpu, std::uint16_t selector, Descriptor& out, Vector outside, std::uint32_t ext) {
  if (!readDescriptor(cpu, selector, out, outside, ext)) return false;
  return !cpu.longMode() || readDescriptorHigh(cpu, selector, out, outside, ext);
}

bool setAccessed(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor) {
  constexpr std::uint64_t kAccessed = 1ull << 40;
  if ((descriptor.low & kAccessed) != 0) return true;
  descriptor.low |= kAccessed;
  return changeTypeByte(cpu, selector, 1, 0);
}

bool setBusy(Cpu& cpu, std::uint16_t selector, bool busy) {
  return busy ? changeTypeByte(cpu, selector, 2, 0) : changeTypeByte(cpu, selector, 0, 2);
}

}  // namespace lodge::x86
