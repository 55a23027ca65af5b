// SPDX-License-Identifier: Apache-2.0
#include "device/interrupt_router.h"

namespace lodge {

SharedInterrupt::SharedInterrupt(InterruptLine& output) : output_(output) {
  for (unsigned n = 0; n < kInputs; ++n) {
    inputs_[n].owner = this;
    inputs_[n].number = n;
  }
}

void SharedInterrupt::setInput(unsigned number, bool level) {
  std::lock_guard lock(mutex_);
  std::uint32_t bit = 1u << number;
  asking_ = level ? asking_ | bit : asking_ & ~bit;
  output_.set(asking_ != 0);
}

SwitchedInterrupt::SwitchedInterrupt(InterruptLine& output) : output_(output) {
  for (Input& input : inputs_) input.owner = this;
}

void SwitchedInterrupt::setInput(Input& input, bool level) {
  std::lock_guard lock(mutex_);
  input.high = level;
  if (&input == &inputs_[second_ ? 1 : 0]) output_.set(level);
}

bool SwitchedInterrupt::inputWaits(const Input& input) const {
  std::lock_guard lock(mutex_);
  return &input == &inputs_[second_ ? 1 : 0] && output_.waits();
}

void SwitchedInterrupt::select(bool second) {
  std::lock_guard lock(mutex_);
  second_ = second;
  output_.set(inputs_[second ? 1 : 0].high);
}

bool SwitchedInterrupt::secondSelected() const {
  std::lock_guard lock(mutex_);
  return second_;
}

InterruptRouter::InterruptRouter(Pic& pic, IoApic& ioApic) : ioApic_(ioApic) {
  for (unsigned n = 0; n < lines_.size(); ++n) {
    lines_[n].router = this;
    lines_[n].number = n;
    if (n < 16) lines_[n].pic = &pic.line(n);
    lines_[n].ioApic = &ioApic.line(pinOf(n));
  }
}

InterruptLine& InterruptRouter::gsi(unsigned number) {
  if (number == 2) return lines_[0];
  return number == 0 ? ioApic_.line(0) : lines_.at(number);
}

void InterruptRouter::setLine(const Line& line, bool level) {
  std::shared_lock lock(mutex_);
  if (!keeper_) {
    if (line.pic) line.pic->set(level);
    line.ioApic->set(level);
    return;
  }
  std::uint32_t bit = 1u << line.number;
  std::uint32_t before = level ? levels_.fetch_or(bit) : levels_.fetch_and(~bit);
  if (((before & bit) != 0) != level) keeper_->setLine(line.number, level);
}

bool InterruptRouter::lineWaits(const Line& line) const {
  std::shared_lock lock(mutex_);
  return !keeper_ && ((line.pic && line.pic->waits()) || line.ioApic->waits());
}

void InterruptRouter::setKeeper(ChipKeeper* keeper, const std::function<void()>& move) {
  std::unique_lock lock(mutex_);
  if (keeper) {
    std::uint32_t pins = ioApic_.save().levels;
    levels_ = (pins & ~5u) | (pins >> 2 & 1);
  }
  move();
  keeper_ = keeper;
}

}  // namespace lodge
