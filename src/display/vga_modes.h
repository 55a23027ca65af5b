// SPDX-License-Identifier: Apache-2.0
// Inside of Vga.
#pragma once

#include <cstdint>

namespace lodge {

namespace dispi {
enum Index : unsigned {
  id,
  width,
  height,
  bitsPerPixel,
  enable,
  bank,
  virtualWidth,
  virtualHeight,
  xOffset,
  yOffset,
  memory64k,
};
inline constexpr std::uint16_t kVersion = 0xb0c5;
inline constexpr std::uint16_t kEnabled = 0x01, kCapabilities = 0x02, kEightBitDac = 0x20, kNoClear = 0x80;
}  // namespace dispi

/// Bytes from one line to the next. Four-bit modes have a byte of each plane for eight pixels.
struct Pitch {
  Pitch(unsigned pixels, unsigned bitsPerPixel)
      : bytes(bitsPerPixel == 4 ? pixels / 8 * 4 : pixels * ((bitsPerPixel + 7) / 8)) {}
  std::uint32_t bytes;
};

}  // namespace lodge
