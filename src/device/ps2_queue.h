// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

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

 private:
  std::deque<std::uint8_t> bytes_;
};

}  // namespace lodge
