// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/qemu_nets.h"
#include "cli/qemu_settings.h"

namespace lodge::cli {

/// qemu-system-x86_64's PCI buses: its -device pcie-root-port, and where its other devices are. Slots are Lodge's own
/// choice; what is behind a port is not.
class QemuPci {
 public:
  /// -device. Errors: invalidArgument (two devices at one address or behind one port, a bus that does not exist).
  Status device(const std::string& kind, QemuSettings settings);
  static bool isPort(const std::string& kind) { return kind == "pcie-root-port" || kind == "ioh3420"; }
  bool hasPorts() const { return !ports_.empty(); }
  /// Appends --pcie-port for each port to `words`, which have all the rest. Errors: QemuNets::find()'s.
  Status finish(std::vector<std::string>& words, const QemuNets& nets) const;

 private:
  struct Port {
    std::string id, kind;  ///< of the device behind it; empty: none
    unsigned number = 0;   ///< among its kind
    std::string network;
  };
  Status claimAddress(const std::string& kind, const QemuSettings& settings);

  std::vector<Port> ports_;
  std::map<std::string, std::string> addresses_;  ///< kinds of devices by bus and addr=
  std::map<std::string, unsigned> counts_;        ///< devices of each kind so far
};

}  // namespace lodge::cli
