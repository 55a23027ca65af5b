// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "device/fakes.h"
#include "device/i8042.h"

namespace lodge {
namespace {

class Ps2Test : public testing::Test {
 protected:
  Ps2Test() {
    controller_.attachDevices(irq12_);
    command(0x60, 0x47);  // both interrupts, translation, both devices on
  }
  void command(unsigned code) { controller_.command().write(0, 1, code); }
  void command(unsigned code, unsigned data) {
    command(code);
    controller_.data().write(0, 1, data);
  }
  /// All bytes that wait.
  std::vector<unsigned> bytes() {
    std::vector<unsigned> all;
    while ((controller_.command().read(0, 1) & 1) != 0) {
      all.push_back(static_cast<unsigned>(controller_.data().read(0, 1)));
    }
    return all;
  }
  std::vector<unsigned> keyboard(unsigned byte) {
    controller_.data().write(0, 1, byte);
    return bytes();
  }
  std::vector<unsigned> mouse(unsigned byte) {
    command(0xd4, byte);
    return bytes();
  }

  FakeLine irq1_, irq12_;
  I8042 controller_{irq1_, [] {}};
};
using Bytes = std::vector<unsigned>;

TEST_F(Ps2Test, KeysComeTranslated) {
  controller_.key(0x1e, true);
  EXPECT_TRUE(irq1_.level);
  EXPECT_FALSE(irq12_.level);
  controller_.key(0x1e, false);
  controller_.key(0xe048, true);
  EXPECT_EQ(bytes(), (Bytes{0x1e, 0x9e, 0xe0, 0x48}));
  EXPECT_FALSE(irq1_.level);
  EXPECT_EQ(irq1_.rises, 4);
}

TEST_F(Ps2Test, WithoutTranslationKeysHaveSet2) {
  command(0x60, 0x07);
  controller_.key(0x1e, true);
  controller_.key(0xe048, false);
  EXPECT_EQ(bytes(), (Bytes{0x1c, 0xe0, 0xf0, 0x75}));
}

TEST_F(Ps2Test, TheKeyboardAnswers) {
  EXPECT_EQ(keyboard(0xff), (Bytes{0xfa, 0xaa}));
  EXPECT_EQ(keyboard(0xf2), (Bytes{0xfa, 0xab, 0x41}));
  EXPECT_EQ(keyboard(0xed), Bytes{0xfa});
  EXPECT_EQ(keyboard(0x02), Bytes{0xfa});
  EXPECT_EQ(keyboard(0xf5), Bytes{0xfa});
  controller_.key(0x1e, true);
  EXPECT_EQ(bytes(), Bytes{}) << "scanning is off";
  EXPECT_EQ(keyboard(0x01), Bytes{0xfe});
}

TEST_F(Ps2Test, TheMouseReportsWhenAskedTo) {
  controller_.mouse(5, 5, 0, 0);
  EXPECT_EQ(bytes(), Bytes{});
  EXPECT_EQ(mouse(0xff), (Bytes{0xfa, 0xaa, 0}));
  EXPECT_EQ(mouse(0xf4), Bytes{0xfa});
  controller_.mouse(3, 2, 0, 1);
  EXPECT_TRUE(irq12_.level);
  EXPECT_EQ(bytes(), (Bytes{0x29, 3, 0xfe}));
  controller_.mouse(-300, 0, 0, 1);
  EXPECT_EQ(bytes(), (Bytes{0x19, 0x01, 0, 0x19, 0xd3, 0}));
}

TEST_F(Ps2Test, ThreeSampleRatesTurnTheWheelOn) {
  for (unsigned rate : {200u, 100u, 80u}) {
    mouse(0xf3);
    mouse(rate);
  }
  EXPECT_EQ(mouse(0xf2), (Bytes{0xfa, 3}));
  mouse(0xf4);
  controller_.mouse(0, 0, -1, 0);
  EXPECT_EQ(bytes(), (Bytes{8, 0, 0, 0xff}));
}

TEST_F(Ps2Test, AHostThatTypesOnIsNotListenedTo) {
  for (int n = 0; n < 1000; ++n) controller_.key(0xe048, (n & 1) == 0);
  EXPECT_LE(bytes().size(), Ps2Keyboard::kQueueBytes + 1);
}

}  // namespace
}  // namespace lodge
