// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "memory/io_bus.h"

namespace lodge {

/// A range of byte-wide registers that belongs to a device with several such ranges: calls `Read(offset)` and
/// `Write(offset, value)` of its owner for each byte of an access, lowest address first.
template <class Owner, std::uint8_t (Owner::*Read)(unsigned), void (Owner::*Write)(unsigned, std::uint8_t)>
class ByteWindow : public IoDevice {
 public:
  explicit ByteWindow(Owner& owner) : owner_(owner) {}

  std::uint64_t read(std::uint64_t offset, unsigned size) override {
    std::uint64_t value = 0;
    for (unsigned n = 0; n < size; ++n) {
      value |= std::uint64_t{(owner_.*Read)(static_cast<unsigned>(offset) + n)} << (8 * n);
    }
    return value;
  }
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    for (unsigned n = 0; n < size; ++n) {
      (owner_.*Write)(static_cast<unsigned>(offset) + n, static_cast<std::uint8_t>(value >> (8 * n)));
    }
  }

 private:
  Owner& owner_;
};

}  // namespace lodge
