// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "device/pci.h"
#include "storage/ahci_port.h"

namespace lodge {

/// An AHCI controller as the ICH9's (8086:2922; AHCI 1.3.1): kPorts ports with a disk or a CD-ROM drive each, 32
/// command slots, native command queuing, INTA#. BAR 5 has the registers.
class AhciController : public PciFunction, private IoDevice {
 public:
  static constexpr unsigned kPorts = 6;

  AhciController(GuestMemory& memory, std::string name);

  /// `number` below kPorts.
  AhciPort& port(unsigned number) { return *ports_.at(number); }
  void reset() override;
  /// As AhciPort's.
  int quiesce();
  bool isQuiet();
  void transfer(state::Archive& a) override;
  /// BAR 5, for tests.
  IoDevice& registers() { return *this; }

 private:
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  std::uint32_t readRegister(unsigned offset);
  void writeRegister(unsigned offset, std::uint32_t value);
  void update();

  std::array<std::unique_ptr<AhciPort>, kPorts> ports_;
  std::mutex mutex_;
  bool interrupts_ = false;  ///< GHC.IE
  std::uint32_t is_ = 0;
};

}  // namespace lodge
