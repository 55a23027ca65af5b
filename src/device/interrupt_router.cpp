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

InterruptRouter::InterruptRouter(Pic& pic, IoApic& ioApic) : ioApic_(ioApic) {
  for (unsigned irq = 0; irq < isa_.size(); ++irq) {
    isa_[irq].first = &pic.line(irq);
    isa_[irq].second = &ioApic.line(pinOf(irq));
  }
}

InterruptLine& InterruptRouter::gsi(unsigned number) {
  if (number == 2) return isa_[0];
  if (number == 0) return ioApic_.line(0);
  return number < 16 ? static_cast<InterruptLine&>(isa_[number]) : ioApic_.line(number);
}

}  // namespace lodge
