// SPDX-License-Identifier: Apache-2.0
#include "display/cursor.h"

#include <algorithm>

#include "display/screen.h"

namespace lodge {

namespace {
std::uint32_t mix(std::uint32_t over, std::uint32_t under) {
  std::uint32_t alpha = over >> 24, mixed = 0;
  for (unsigned shift : {16u, 8u, 0u}) {
    std::uint32_t part = (over >> shift & 255) + (under >> shift & 255) * (255 - alpha) / 255;
    mixed |= std::min(part, 255u) << shift;
  }
  return mixed;
}
}  // namespace

void drawCursor(Screen& screen, const Cursor& cursor) {
  const Cursor::Shape& shape = cursor.shape;
  for (unsigned y = 0; y < shape.height; ++y) {
    for (unsigned x = 0; x < shape.width; ++x) {
      std::int64_t atX = std::int64_t{cursor.x} + x, atY = std::int64_t{cursor.y} + y;
      if (atX < 0 || atY < 0 || atX >= screen.width || atY >= screen.height) continue;
      std::uint32_t& under = screen.row(static_cast<unsigned>(atY))[atX];
      under = mix(shape.pixels[std::size_t{y} * shape.width + x], under);
    }
  }
}

}  // namespace lodge
