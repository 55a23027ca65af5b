// SPDX-License-Identifier: Apache-2.0
#include "display/cursor.h"

#include <gtest/gtest.h>

#include "display/screen.h"

namespace lodge {
namespace {

TEST(CursorPicture, IsMixedInWhereItIsOnTheScreen) {
  Screen screen;
  screen.resize(3, 2);
  screen.pixels.assign(6, 0x404040);
  Cursor cursor{-1, 0, {2, 2, 0, 0, {0xffffffff, 0xff112233, 0, 0x80000000}}};
  drawCursor(screen, cursor);
  EXPECT_EQ(screen.pixels[0], 0x112233u) << "its right half";
  EXPECT_EQ(screen.pixels[3], 0x1f1f1fu) << "half black";
  EXPECT_EQ(screen.pixels[1], 0x404040u);
  cursor.x = 2;
  cursor.y = 1;
  drawCursor(screen, cursor);
  EXPECT_EQ(screen.pixels[5], 0xffffffu);
  EXPECT_EQ(screen.pixels[4], 0x404040u);
}

}  // namespace
}  // namespace lodge
