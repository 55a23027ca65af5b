// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "device/pci.h"
#include "device/pcie_port.h"
#include "state/snapshot.h"

namespace lodge {

/// Hands out the board's PCI slots, each to a device or, where the configuration asks for it (`--pcie-port DEVICE`), to
/// a PCI Express port with the device behind it.
class PciSlots {
 public:
  /// Slots from `first` on. `behindPorts`: names of devices, `kAll`, or `kNone` for a port with nothing behind it.
  PciSlots(unsigned first, std::vector<std::string> behindPorts)
      : next_(first), wanted_(std::move(behindPorts)), met_(wanted_.size()) {}
  static constexpr std::string_view kAll = "all", kNone = "none";

  /// Puts `function`, the device `name`, into the next free slot. Returns where it is, up to the last '/', in the form
  /// of Open Firmware, and then its device number in hexadecimal: "/pci@i0cf8/" and "4". Errors: PciHost's, and of a
  /// bus without a free slot.
  struct Place {
    std::string folder, unit;
    /// The device's own path: "/pci@i0cf8/scsi@4".
    std::string path(std::string_view kind) const { return folder + std::string(kind) + "@" + unit; }
  };
  Result<Place> plug(PciHost& host, PciFunction& function, const std::string& name);
  /// After all devices: ports without one. Errors: a name that is no device's.
  Status finish(PciHost& host);
  void transfer(state::Snapshot& snapshot);

 private:
  bool wantsPort(const std::string& name);
  Result<unsigned> takeSlot(const std::string& name);
  Status plugPort(PciHost& host, unsigned slot, PciFunction* behind);

  unsigned next_;
  std::vector<std::string> wanted_, names_;
  std::vector<bool> met_;
  std::vector<std::unique_ptr<PciePort>> ports_;
};

}  // namespace lodge
