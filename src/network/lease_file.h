// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "network/network.h"

namespace lodge::network {

/// Keeps a network's leases in a file while the network is up: if its process is killed, the next one gives nobody an
/// address that a machine still has. A network that ends in good order leaves no such file. I/O thread.
class LeaseFile {
 public:
  /// Restores what a process before this one left.
  LeaseFile(EventLoop& loop, Network& network, std::string path);
  ~LeaseFile();
  LeaseFile(const LeaseFile&) = delete;
  LeaseFile& operator=(const LeaseFile&) = delete;

 private:
  void restore();
  void write() const;

  EventLoop& loop_;
  Network& network_;
  std::string path_;
  std::unique_ptr<Timer> soon_;
};

}  // namespace lodge::network
