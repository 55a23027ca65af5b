// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge::interpret {

/// Where the host, and so the guest, keeps extended state components (CPUID leaf 0DH, subleaves 2 and up).
struct XsaveLayout {
  static constexpr unsigned kComponents = 10;
  std::uint16_t offset[kComponents];  ///< in the standard format
  std::uint16_t size[kComponents];
  bool align64[kComponents];  ///< in the compacted format

  unsigned compactedOffset(unsigned component, unsigned end) const {
    return align64[component] ? (end + 63) & ~63u : end;
  }
};

/// Read from CPUID before main().
const XsaveLayout& xsaveLayout();

}  // namespace lodge::interpret
