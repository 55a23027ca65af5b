// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "device/acpi_pm.h"
#include "device/piix3.h"
#include "state/archive.h"

namespace lodge {

/// The ISA bridge of the `q35` board (Intel ICH9 data sheet, 316972, chapter 13): PIRQA to PIRQD have their route
/// registers where the PIIX3 has them; those of PIRQE to PIRQH are kept. The ACPI registers answer at 0x600 whatever
/// PMBASE says, which is where all firmware puts them. Goes to slot 31.
class Ich9Lpc : public Piix3 {
 public:
  Ich9Lpc(const IsaLines& lines, AcpiPm& pm);
  void reset() override;
  void transfer(state::Archive& a) override;

 private:
  void configWritten(unsigned offset, unsigned size) override;
  void loadResetValues();

  AcpiPm& pm_;
  std::atomic<bool> smiLocked_{false};
};

/// The APM ports 0xb2 and 0xb3 (13.7.1): a write of a command is a system management interrupt, where that is enabled.
/// Any thread.
class Ich9Apm : public IoDevice {
 public:
  static constexpr std::uint16_t kPort = 0xb2;
  static constexpr std::uint64_t kBytes = 2;
  explicit Ich9Apm(std::function<void()> onCommand) : onCommand_(std::move(onCommand)) {}

  std::uint64_t read(std::uint64_t offset, unsigned size) override {
    std::uint64_t both = command_ | std::uint64_t{status_} << 8;
    return size == 2 ? both : both >> (8 * offset) & 0xff;
  }
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    if (offset == 1 || size == 2) status_ = static_cast<std::uint8_t>(size == 2 ? value >> 8 : value);
    if (offset != 0) return;
    command_ = static_cast<std::uint8_t>(value);
    onCommand_();
  }

  void transfer(state::Archive& a) { a(command_, status_); }

 private:
  std::function<void()> onCommand_;
  std::atomic<std::uint8_t> command_{0}, status_{0};
};

}  // namespace lodge
