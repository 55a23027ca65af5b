// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/bytes.h"

namespace lodge::image {

/// An integer as it stands in a file: of known byte order, at any alignment.
template <class T, bool big>
class Stored {
 public:
  Stored() = default;
  Stored(T value) { *this = value; }  // NOLINT(google-explicit-constructor)
  operator T() const {                // NOLINT(google-explicit-constructor)
    return big ? loadBe<T>(bytes_.data()) : loadLe<T>(bytes_.data());
  }
  Stored& operator=(T value) {
    if constexpr (big) {
      storeLe<T>(bytes_.data(), value);
      storeLe<T>(bytes_.data(), loadBe<T>(bytes_.data()));
    } else {
      storeLe<T>(bytes_.data(), value);
    }
    return *this;
  }

 private:
  std::array<std::byte, sizeof(T)> bytes_{};
};

using Le16 = Stored<std::uint16_t, false>;
using Le32 = Stored<std::uint32_t, false>;
using Le64 = Stored<std::uint64_t, false>;
using Be16 = Stored<std::uint16_t, true>;
using Be32 = Stored<std::uint32_t, true>;
using Be64 = Stored<std::uint64_t, true>;
static_assert(sizeof(Le16) == 2 && sizeof(Be32) == 4 && sizeof(Le64) == 8);
static_assert(std::is_trivially_copyable_v<Be64>);

}  // namespace lodge::image
