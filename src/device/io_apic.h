// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "device/apic.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"
#include "x86/chip_registers.h"

namespace lodge {

/// The I/O APIC (82093AA data sheet; version 0x20 with its EOI register): 24 pins to interrupt messages. An IoDevice of
/// 4 KiB, usually at 0xfec00000. Polarity bits are kept and ignored: lines say whether they are asserted. Any thread;
/// messages are sent with its mutex held.
class IoApic : public IoDevice, public EoiListener {
 public:
  static constexpr unsigned kPins = x86::IoApicRegisters::kPins;
  static constexpr std::uint64_t kSize = 0x1000;

  /// `id`: the reset value of its ID register, 0..15.
  IoApic(ApicMessageSink& sink, std::uint8_t id);

  InterruptLine& line(unsigned pin) { return lines_.at(pin); }
  /// A local APIC's EOI broadcast.
  void endOfInterrupt(std::uint8_t vector) override;
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  void reset();

  using State = x86::IoApicRegisters;
  State save() const;
  void restore(const State& state);
  /// An engine gets the state; until adopt() nothing comes of this one.
  State surrender();
  /// restore(), when CPUs can take what level-triggered pins ask.
  void adopt(const State& state);

 private:
  struct Line : InterruptLine {
    void set(bool level) override { owner->setLine(pin, level); }
    bool waits() const override { return owner->waits(pin); }
    IoApic* owner = nullptr;
    unsigned pin = 0;
  };
  void setLine(unsigned pin, bool level);
  std::uint32_t readRegisterLocked() const;
  void writeRegisterLocked(std::uint32_t value);
  void writeEntryLocked(unsigned pin, std::uint64_t entry);
  void endOfInterruptLocked(std::uint8_t vector);
  void driveLevelLocked(unsigned pin);
  bool sendLocked(unsigned pin);
  void tellLevelLocked(unsigned pin);
  ApicMessage messageLocked(unsigned pin) const;
  bool waits(unsigned pin) const;
  bool highLocked(unsigned pin) const { return (state_.levels >> pin & 1) != 0; }

  ApicMessageSink& sink_;
  const std::uint8_t initialId_;
  std::array<Line, kPins> lines_;
  mutable std::mutex mutex_;
  State state_{};
};

}  // namespace lodge
