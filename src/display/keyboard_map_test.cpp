// SPDX-License-Identifier: Apache-2.0
#include "display/keyboard_map.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

TEST(KeyboardMap, CharactersAndNamesHaveKeys) {
  EXPECT_EQ(scanCodeOf('a'), 0x1eu);
  EXPECT_EQ(scanCodeOf('A'), 0x1eu);
  EXPECT_EQ(scanCodeOf('?'), 0x35u);
  EXPECT_EQ(scanCodeOf(0xff52), 0xe048u);
  EXPECT_EQ(scanCodeOf(0xffc9), 0x58u);
  EXPECT_EQ(scanCodeOf(0x12345678), 0u);
}

TEST(KeyboardMap, JoinedKeysGoUpInTheOtherOrder) {
  auto keys = keysNamed("ctrl-alt-delete");
  ASSERT_TRUE(keys);
  std::vector<KeyEvent> expected{{0xffe3, true},  {0xffe9, true},  {0xffff, true},
                                 {0xffff, false}, {0xffe9, false}, {0xffe3, false}};
  EXPECT_EQ(*keys, expected);
  EXPECT_FALSE(keysNamed("ctrl-nothing"));
  EXPECT_FALSE(keysNamed(""));
}

TEST(KeyboardMap, TypingShifts) {
  auto keys = keysTyping("a!\n");
  ASSERT_TRUE(keys);
  std::vector<KeyEvent> expected{{'a', true},  {'a', false},    {0xffe1, true}, {'!', true},
                                 {'!', false}, {0xffe1, false}, {0xff0d, true}, {0xff0d, false}};
  EXPECT_EQ(*keys, expected);
  EXPECT_FALSE(keysTyping("\x80"));
}

}  // namespace
}  // namespace lodge
