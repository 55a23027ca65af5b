// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "network/definition.h"

namespace lodge::network {

/// The user's networks: a JSON file each in $XDG_CONFIG_HOME/lodge/networks (else ~/.config/...).
class Store {
 public:
  /// Makes the folder. Errors: permissionDenied, io.
  static Result<Store> open();

  /// Errors: notFound, with the names that there are; corrupt.
  Result<NetworkDefinition> load(const std::string& name) const;
  /// All that can be read, sorted by name; `broken` gets what cannot.
  std::vector<NetworkDefinition> all(std::vector<Error>* broken = nullptr) const;
  bool has(const std::string& name) const;
  /// Replaces the file whole.
  Status save(const NetworkDefinition& definition) const;
  Status remove(const std::string& name) const;

 private:
  explicit Store(std::string folder) : folder_(std::move(folder)) {}
  std::string pathOf(const std::string& name) const { return folder_ + "/" + name + ".json"; }
  std::string folder_;
};

/// Where a running network has its sockets, lock and log: $XDG_RUNTIME_DIR/lodge-networks/NAME, else under /run/user or
/// /tmp. Made with mode 0700. Errors: permissionDenied if it is somebody else's.
Result<std::string> runtimeFolderOf(const std::string& name);
/// Names of the networks that have such a folder.
std::vector<std::string> runtimeNames();

/// The blocks of addresses that networks of the user's and the host's own cards have, with whose they are.
std::vector<std::pair<std::string, IpBlock>> takenBlocks(const Store& store, const std::string& except);

}  // namespace lodge::network
