// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "device/pci.h"

namespace lodge {

/// A root port of a PCI Express root complex (PCI Express Base Specification 3.0, 1.4 and 7.8): a bridge between bus 0
/// and a bus of its own with one device, whose number and address windows software sets (PCI-to-PCI Bridge Architecture
/// 1.2, 3.2). PciHost::plugPort() puts it in place, and forwards what the windows let through. Not there: hot plug,
/// power management events, error reporting, resets of the bus behind; the forwarding of VGA's addresses; transactions
/// of the device itself are forwarded whatever the port's bus master bit says.
class PciePort : public PciFunction {
 public:
  /// `number` (1..255) is that of its link and its slot, by which operating systems call it.
  PciePort(unsigned number, std::string name);
  void reset() override;

 private:
  void loadResetValues();
};

/// Gives a function the capability of a PCI Express endpoint, which one behind a port has.
void makeExpressEndpoint(PciFunction& function);

}  // namespace lodge
