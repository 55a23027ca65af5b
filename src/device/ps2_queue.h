// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "state/archive.h"

namespace lodge {

/// What a PS/2 device has to say. Full: what comes is lost, as a whole.
template <std::size_t Capacity>
class Ps2Queue {
 public:
  bool empty() const { return bytes_.empty(); }
  bool hasRoom(std::size_t count) const { return bytes_.size() + count <= Capacity; }
  void put(std::uint8_t byte) {
    if (hasRoom(1)) bytes_.push_back(byte);
  }
  std::uint8_t take() {
    std::uint8_t byte = bytes_.front();
    bytes_.pop_front();
    return byte;
  }
  void clear() { bytes_.clear(); }
  void transfer(state::Archive& a) {
    std::size_t count = a.count(bytes_.size(), Capacity, "the bytes of a PS/2 device");
    if (a.loading()) bytes_.assign(count, 0);
    for (std::uint8_t& byte : bytes_) a(byte);
  }

 private:
  std::deque<std::uint8_t> bytes_;
};

}  // namespace lodge
