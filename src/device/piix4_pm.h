// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "device/pci.h"
#include "memory/io_bus.h"

namespace lodge {

/// The power management function of the `pc` board's chipset (Intel 82371AB data sheet, 290562, chapter 7): it decodes
/// the ACPI registers at the port range that firmware chooses, and the two APM ports 0xb2 and 0xb3, which keep what is
/// written. There is no system management mode: the bit by which firmware finds that its handler is installed already
/// is set from the start.
class Piix4Pm : public PciFunction {
 public:
  static constexpr std::uint16_t kApmPort = 0xb2;
  static constexpr std::uint64_t kApmBytes = 2;

  /// `registers`: the ACPI registers, kLength ports; `usualBase`: where the board decodes them in any case.
  Piix4Pm(IoBus& ports, IoDevice& registers, std::uint16_t usualBase);
  ~Piix4Pm() override;

  IoDevice& apm() { return apm_; }
  void reset() override;
  void transfer(state::Archive& a) override;

 private:
  struct Apm : IoDevice {
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    std::atomic<std::uint8_t> bytes[kApmBytes]{};
  };
  void configWritten(unsigned offset, unsigned size) override;
  void loadResetValues();
  void place();

  IoBus& ports_;
  IoDevice& registers_;
  std::uint16_t usualBase_;
  std::optional<std::uint16_t> placed_;  // configuration writes come one at a time
  Apm apm_;
};

}  // namespace lodge
