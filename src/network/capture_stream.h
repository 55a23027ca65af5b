// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "network/port.h"

namespace lodge::network {

/// A capture that runs: pcapng bytes for a client that takes them as fast as it can. Frames that find no room in the
/// bounded buffer are left out whole, and counted.
class CaptureStream {
 public:
  /// `port`: the only one to capture, or empty.
  CaptureStream(std::string port, std::uint32_t snapLength);
  void add(const Port& port, std::span<const std::uint8_t> frame, CaptureFormat::Direction direction);
  std::string& pending() { return pending_; }
  std::uint64_t left() const { return left_; }

 private:
  std::string port_;
  std::uint32_t snapLength_;
  std::map<PortId, std::uint32_t> interfaces_;
  std::string pending_;
  std::uint64_t left_ = 0;
};

}  // namespace lodge::network
