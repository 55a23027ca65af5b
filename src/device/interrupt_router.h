// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <mutex>

#include "device/interrupt.h"
#include "device/io_apic.h"
#include "device/pic.h"

namespace lodge {

/// One controller input that several devices share (wired OR): it is high while any of them asks.
///   SharedInterrupt sci(router.isa(9));  InterruptLine& pm = sci.input(0);
class SharedInterrupt {
 public:
  static constexpr unsigned kInputs = 32;
  explicit SharedInterrupt(InterruptLine& output);
  /// `number` 0..31: one for each device.
  InterruptLine& input(unsigned number) { return inputs_.at(number); }

 private:
  struct Input : InterruptLine {
    void set(bool level) override { owner->setInput(number, level); }
    SharedInterrupt* owner = nullptr;
    unsigned number = 0;
  };
  void setInput(unsigned number, bool level);

  InterruptLine& output_;
  std::array<Input, kInputs> inputs_;
  std::mutex mutex_;
  std::uint32_t asking_ = 0;
};

/// One controller input that one of two devices has, the first until told otherwise; what the other one does with its
/// line is kept.
class SwitchedInterrupt {
 public:
  explicit SwitchedInterrupt(InterruptLine& output);
  InterruptLine& first() { return inputs_[0]; }
  InterruptLine& second() { return inputs_[1]; }
  void select(bool second);

 private:
  struct Input : InterruptLine {
    void set(bool level) override { owner->setInput(*this, level); }
    bool waits() const override { return owner->inputWaits(*this); }
    SwitchedInterrupt* owner = nullptr;
    bool high = false;
  };
  void setInput(Input& input, bool level);
  bool inputWaits(const Input& input) const;

  InterruptLine& output_;
  std::array<Input, 2> inputs_;
  mutable std::mutex mutex_;
  bool second_ = false;
};

/// The wiring of a PC's interrupt lines: ISA IRQ n goes to the 8259As and to the same pin of the I/O APIC, but for IRQ
/// 0, which is at pin 2 (the MADT says so); pins from 16 on are the I/O APIC's alone.
class InterruptRouter {
 public:
  InterruptRouter(Pic& pic, IoApic& ioApic);
  /// An ISA IRQ, 0..15 without 2.
  InterruptLine& isa(unsigned irq) { return isa_.at(irq); }
  /// A global system interrupt, 0..23: below 16 as isa(), where 2 is IRQ 0.
  InterruptLine& gsi(unsigned number);
  /// The I/O APIC's pin for an ISA IRQ.
  static constexpr unsigned pinOf(unsigned irq) { return irq == 0 ? 2 : irq; }

 private:
  struct Fork : InterruptLine {
    void set(bool level) override {
      first->set(level);
      second->set(level);
    }
    bool waits() const override { return first->waits() || second->waits(); }
    InterruptLine* first = nullptr;
    InterruptLine* second = nullptr;
  };
  IoApic& ioApic_;
  std::array<Fork, 16> isa_;
};

}  // namespace lodge
