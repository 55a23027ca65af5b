// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "cli/qemu_settings.h"

namespace lodge::cli {

/// qemu-system-x86_64's network cards, which come in two options: -net and -netdev say what a card is on, -net nic and
/// -device virtio-net-pci,netdev=ID what it is; -nic says both.
class QemuNets {
 public:
  /// -net, -netdev, -nic. Errors: unsupported.
  Status net(const std::string& option, const std::string& text, std::vector<std::string>& notes);
  /// -device. False: it is no network card.
  Result<bool> device(const std::string& kind, QemuSettings settings, std::vector<std::string>& notes);
  /// Appends --net for each.
  void finish(std::vector<std::string>& words) const;
  /// Where the network `id` is among them. Errors: invalidArgument (`option`: it does not exist).
  Result<std::size_t> find(const std::string& option, const std::string& id) const;

 private:
  struct Net {
    std::string id, word, mac;
  };
  std::vector<Net> nets_;
  std::vector<std::string> cardMacs_;  ///< of -net nic, in their order
  bool off_ = false;
};

}  // namespace lodge::cli
