// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/register_tracker.h"

#include "engine/translate/register_effects.h"

namespace lodge::translate {

namespace {
using namespace x86;
/// 32-bit code: the longest way from a register's value to an access off it. The pages at both ends of the address
/// space are in no soft TLB (soft_tlb.h), so that no sum wraps where an access is off a probe.
constexpr std::int64_t kMaxReach = 4096 - 64;
}  // namespace

/// Moves that keep track of a value: returns whether `i` was one.
bool RegisterTracker::copies(const Instruction& i) {
  if (i.operandSize != word_) return false;
  switch (i.info->op) {
    case Op::mov:
      if (i.memory || (i.info->form != Form::e_g && i.info->form != Form::g_e)) return false;
      if (i.info->form == Form::e_g) {
        now_[i.rm] = now_[i.reg];
      } else {
        now_[i.reg] = now_[i.rm];
      }
      return true;
    case Op::lea:
      if (i.addressSize != word_ || i.ripRelative || i.base == kNoRegister || i.index != kNoRegister) return false;
      now_[i.reg] = {now_[i.base].origin, now_[i.base].offset + i.displacement};
      return true;
    case Op::add:
    case Op::sub: {
      if (i.memory || (i.info->form != Form::e_i && i.info->form != Form::a_i)) return false;
      auto by = static_cast<std::int64_t>(i.immediate);
      now_[i.info->form == Form::a_i ? std::uint8_t{rax} : i.rm].offset += i.info->op == Op::add ? by : -by;
      return true;
    }
    case Op::inc:
    case Op::dec:
      if (i.memory) return false;
      now_[i.rm].offset += i.info->op == Op::inc ? 1 : -1;
      return true;
    default:
      return false;
  }
}

void RegisterTracker::update(const Instruction& i) {
  if (copies(i)) return;
  TrackedValue stackPointer = now_[rsp];
  TrackedValue frame = now_[rbp];
  std::uint16_t written = writtenRegisters(i);
  for (unsigned left = written; left != 0; left &= left - 1)
    now_[static_cast<unsigned>(__builtin_ctz(left))] = {TrackedValue::kUnknown, 0};
  switch (i.info->op) {
    case Op::push:
      now_[rsp] = {stackPointer.origin, stackPointer.offset - word_};
      break;
    case Op::pop:
      if (i.memory || i.rm != rsp) now_[rsp] = {stackPointer.origin, stackPointer.offset + word_};
      break;
    case Op::leave:
      now_[rsp] = {frame.origin, frame.offset + word_};
      break;
    default:
      break;
  }
}

/// Of base and index registers, without the displacement.
TrackedValue RegisterTracker::address(const Instruction& i) {
  TrackedValue base = now_[i.base];
  if (i.index == kNoRegister || base.origin == TrackedValue::kUnknown) return base;
  TrackedValue index = now_[i.index];
  if (index.origin == TrackedValue::kUnknown) return index;
  RegisterPair sum{base.origin, index.origin, i.scale};
  std::int64_t offset = base.offset + index.offset * i.scale;
  for (unsigned n = 0; n < pairCount_; ++n) {
    if (pairs_[n] == sum) return {static_cast<std::uint8_t>(kRegisters + n), offset};
  }
  if (pairCount_ == kPairs) return {TrackedValue::kUnknown, 0};
  pairs_[pairCount_] = sum;
  return {static_cast<std::uint8_t>(kRegisters + pairCount_++), offset};
}

/// Whether the operand's address may wrap at 4 GiB.
bool RegisterTracker::mayWrap(const Instruction& i) const {
  return word_ == 4 && (i.index != kNoRegister || i.displacement < -kMaxReach || i.displacement > kMaxReach);
}

bool RegisterTracker::mayTrack(const Instruction& i) const {
  if (!i.memory || i.base == kNoRegister || i.addressSize != word_ || mayWrap(i)) return false;
  return i.segment != fs && i.segment != gs && i.info->op != Op::lea;
}

TrackedAccess RegisterTracker::operandAccess(const Instruction& i) {
  if (!mayTrack(i)) return {};
  MemoryOperand m = memoryOperand(i);
  if (m.bytes == 0) return {};
  TrackedValue v = address(i);
  return {v.origin != TrackedValue::kUnknown, {v.origin, v.offset + i.displacement}, m.bytes, m.write};
}

TrackedAccess RegisterTracker::stackAccess(const Instruction& i) const {
  TrackedValue top = now_[rsp];
  bool known = top.origin != TrackedValue::kUnknown;
  switch (i.info->op) {
    case Op::push:
    case Op::call:
    case Op::call_indirect:
      return {known, {top.origin, top.offset - word_}, word_, true};
    case Op::pop:
      if (i.memory) return {};
      [[fallthrough]];
    case Op::ret:
      return {known, top, word_, false};
    case Op::leave:
      return {now_[rbp].origin != TrackedValue::kUnknown, now_[rbp], word_, false};
    default:
      return {};
  }
}

}  // namespace lodge::translate
