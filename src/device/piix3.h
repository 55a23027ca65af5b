// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>

#include "device/interrupt.h"
#include "device/pci.h"

namespace lodge {

/// The ISA bridge of the `pc` board (Intel 82371SB data sheet, 290550): its PIRQ route registers put the four PCI
/// interrupts on ISA IRQs. Goes to slot 1, function 0. Any thread.
class Piix3 : public PciFunction {
 public:
  /// Where ISA IRQs go, by number; null where a PCI interrupt may not be routed (data sheet 2.2.8).
  using IsaLines = std::array<InterruptLine*, 16>;
  explicit Piix3(const IsaLines& lines);

  /// PIRQA..PIRQD, `number` 0..3.
  InterruptLine& pirq(unsigned number) { return pirqs_.at(number); }
  void reset() override;
  void transfer(state::Archive& a) override;

 protected:
  /// A bridge with the same route registers.
  Piix3(const PciIdentity& identity, std::string name, const IsaLines& lines);
  void configWritten(unsigned offset, unsigned size) override;

 private:
  struct Pirq : InterruptLine {
    void set(bool level) override { owner->setPirq(number, level); }
    Piix3* owner = nullptr;
    unsigned number = 0;
  };
  void setPirq(unsigned number, bool level);
  void loadRoutes();
  void updateLocked();

  IsaLines lines_;
  std::array<Pirq, 4> pirqs_;
  std::mutex mutex_;
  std::array<std::uint8_t, 4> routes_{0x80, 0x80, 0x80, 0x80};
  unsigned asking_ = 0;       // PIRQs that are high
  std::uint16_t driven_ = 0;  // ISA IRQs that are high
};

}  // namespace lodge
