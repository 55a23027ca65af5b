// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/units.h"

namespace lodge {

/// A mapping of its own through which a file in memory gets huge pages, where the host gives such to it: filling one
/// costs a third of what its 512 small pages cost. One thread.
class HugeWindow {
 public:
  static constexpr std::uint64_t kBytes = 2_MiB;

  HugeWindow() = default;
  ~HugeWindow();
  HugeWindow(const HugeWindow&) = delete;
  HugeWindow& operator=(const HugeWindow&) = delete;

  /// The file's bytes from `offset`, a multiple of kBytes, to be written until the next call. Empty if they are in
  /// small pages, or not there: from then on it is not tried any more.
  std::span<std::byte> at(int fd, std::uint64_t offset);

 private:
  bool reserve();

  std::byte* reserved_ = nullptr;  ///< twice kBytes of addresses
  std::byte* window_ = nullptr;    ///< kBytes of them, aligned
  bool hopeless_ = false;
};

}  // namespace lodge
