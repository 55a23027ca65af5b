// SPDX-License-Identifier: Apache-2.0
#include "x86/delivery.h"
#include "x86/descriptor.h"
#include "x86/segment_access.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

std::uint64_t StackFrame::below(std::uint64_t pointer) const {
  if (flat64_) return pointer - slot_;
  if (stack_.big()) return (pointer - slot_) & 0xffff'ffff;
  return (pointer & ~0xffffull) | ((pointer - slot_) & 0xffff);
}

bool StackFrame::linear(std::uint64_t offset, std::uint64_t& address) const {
  if (flat64_) {
    address = offset;
    return isCanonical(cpu_, offset) && isCanonical(cpu_, offset + slot_ - 1);
  }
  offset &= stack_.big() ? 0xffff'ffff : 0xffff;
  address = (stack_.base + offset) & 0xffff'ffff;
  return withinLimit(stack_, offset, slot_);
}

void StackFrame::push(std::uint64_t value) {
  if (count_ == kMaxSlots) return;
  values_[count_++] = value;
  pointer_ = below(pointer_);
}

bool StackFrame::commit(std::uint32_t faultCode) {
  std::uint64_t pointer = start_;
  std::uint64_t addresses[kMaxSlots];
  for (unsigned i = 0; i < count_; ++i) {
    pointer = below(pointer);
    if (!linear(pointer, addresses[i])) return raise(cpu_, Vector::ss, faultCode);
    // Neighbouring slots of one page need one look.
    bool samePage = i != 0 && ((addresses[i - 1] ^ addresses[i]) & ~kPageMask) == 0 && withinPage(addresses[i], slot_);
    if (!samePage && !probeAs(cpu_, addresses[i], slot_, Access::write, rights_)) return false;
  }
  for (unsigned i = 0; i < count_; ++i) {
    if (!writeAs(cpu_, addresses[i], slot_, values_[i], rights_)) return false;
  }
  return true;
}

namespace {

bool readTss(Cpu& cpu, unsigned offset, unsigned size, std::uint32_t ext, std::uint64_t& value) {
  const SegmentRegister& tr = cpu.state.tr;
  if (offset + size - 1 > tr.limit) return raise(cpu, Vector::ts, (tr.selector & 0xfffcu) | ext);
  std::uint64_t address = tr.base + offset;
  return readSystem(cpu, cpu.longMode() ? address : address & 0xffff'ffff, size, value);
}

}  // namespace

bool innerStack(Cpu& cpu, unsigned dpl, std::uint32_t ext, SegmentRegister& stack, std::uint64_t& pointer) {
  bool wide = (cpu.state.tr.type() & 8) != 0;
  unsigned size = wide ? 4 : 2;
  unsigned offset = size + 2 * size * dpl;
  std::uint64_t selectorValue = 0;
  // The whole pair lies in the limit or #TS(TR) comes before any read.
  if (!readTss(cpu, offset + size, 2, ext, selectorValue) || !readTss(cpu, offset, size, ext, pointer)) return false;
  auto selector = static_cast<std::uint16_t>(selectorValue);
  if (isNull(selector)) return raise(cpu, Vector::ts, ext);
  Descriptor descriptor;
  if (!readDescriptor(cpu, selector, descriptor, Vector::ts, ext)) return false;
  if (rpl(selector) != dpl || descriptor.dpl() != dpl || !descriptor.isWritableData()) {
    return raise(cpu, Vector::ts, selectorCode(selector) | ext);
  }
  if (!descriptor.present()) return raise(cpu, Vector::ss, selectorCode(selector) | ext);
  if (!setAccessed(cpu, selector, descriptor)) return false;
  stack = toSegment(descriptor, selector);
  return true;
}

bool longModeStack(Cpu& cpu, unsigned offset, std::uint32_t ext, std::uint64_t& pointer) {
  if (!readTss(cpu, offset, 8, ext, pointer)) return false;
  return isCanonical(cpu, pointer) || raise(cpu, Vector::ss, ext);
}

}  // namespace lodge::x86
