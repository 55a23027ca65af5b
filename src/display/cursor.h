// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace lodge {

struct Screen;

/// A guest's pointer that its graphics device draws over the picture.
struct Cursor {
  struct Shape {
    unsigned width = 0, height = 0;       ///< 0: nothing is to be seen
    unsigned hotX = 0, hotY = 0;          ///< where it points, inside of it
    std::vector<std::uint32_t> pixels{};  ///< 0xaarrggbb, colors multiplied with alpha
    bool operator==(const Shape&) const = default;
  };
  int x = 0, y = 0;  ///< the shape's upper left corner on the screen
  Shape shape{};
  bool operator==(const Cursor&) const = default;
};

/// Mixes the cursor into the picture.
void drawCursor(Screen& screen, const Cursor& cursor);

}  // namespace lodge
