// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <shared_mutex>

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
  bool secondSelected() const;

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

/// Who keeps the 8259As, the I/O APIC and the PIT in place of the board: an engine. Any thread.
class ChipKeeper {
 public:
  virtual ~ChipKeeper() = default;
  /// `line` 0..23 without 2: an ISA IRQ, or a pin of the I/O APIC from 16 on.
  virtual void setLine(unsigned line, bool level) = 0;
};

/// The wiring of a PC's interrupt lines: ISA IRQ n goes to the 8259As and to the same pin of the I/O APIC, but for IRQ
/// 0, which is at pin 2 (the MADT says so); pins from 16 on are the I/O APIC's alone.
///
/// While an engine has the controllers (setKeeper()), what lines do goes to it.
class InterruptRouter {
 public:
  InterruptRouter(Pic& pic, IoApic& ioApic);
  /// An ISA IRQ, 0..15 without 2.
  InterruptLine& isa(unsigned irq) { return lines_.at(irq < 16 ? irq : lines_.size()); }
  /// A global system interrupt, 0..23: below 16 as isa(), where 2 is IRQ 0.
  InterruptLine& gsi(unsigned number);
  /// The I/O APIC's pin for an ISA IRQ.
  static constexpr unsigned pinOf(unsigned irq) { return irq == 0 ? 2 : irq; }
  /// From now on `keeper` has the controllers; null: they are the board's. `move` moves their state, while lines wait:
  /// whoever drives one holds a lock that comes between 2. and 3. of device/interrupt.h.
  void setKeeper(ChipKeeper* keeper, const std::function<void()>& move);
  /// What lines are high, a bit an IRQ or pin from 16 on, while there is a keeper or comes to be one.
  std::uint32_t levels() const { return levels_; }

 private:
  struct Line : InterruptLine {
    void set(bool level) override { router->setLine(*this, level); }
    bool waits() const override { return router->lineWaits(*this); }
    InterruptRouter* router = nullptr;
    unsigned number = 0;
    InterruptLine* pic = nullptr;  ///< null: it has none
    InterruptLine* ioApic = nullptr;
  };
  void setLine(const Line& line, bool level);
  bool lineWaits(const Line& line) const;

  IoApic& ioApic_;
  std::array<Line, IoApic::kPins> lines_;
  mutable std::shared_mutex mutex_;
  ChipKeeper* keeper_ = nullptr;
  std::atomic<std::uint32_t> levels_{0};
};

}  // namespace lodge
