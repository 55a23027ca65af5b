// SPDX-License-Identifier: Apache-2.0
#include "device/pic.h"

#include <gtest/gtest.h>

#include "device/fakes.h"

namespace lodge {
namespace {

class PicTest : public testing::Test {
 protected:
  /// As every PC does it: vectors from 0x20 and 0x28, cascade at IR2.
  void init(std::uint8_t icw4 = 1) {
    for (auto [port, base, wiring] : {std::tuple{&pic.master(), 0x20, 4}, std::tuple{&pic.slave(), 0x28, 2}}) {
      port->write(0, 1, 0x11);
      port->write(1, 1, static_cast<std::uint64_t>(base));
      port->write(1, 1, static_cast<std::uint64_t>(wiring));
      port->write(1, 1, icw4);
    }
  }
  void command(std::uint8_t value) { pic.master().write(0, 1, value); }
  std::uint64_t irr() {
    command(0x0a);
    return pic.master().read(0, 1);
  }
  std::uint64_t isr() {
    command(0x0b);
    return pic.master().read(0, 1);
  }
  int acknowledge() {
    EXPECT_TRUE(out.level);
    return pic.acknowledgeInterrupt();
  }

  FakeLine out;
  Pic pic{out};
};

TEST_F(PicTest, NothingPassesBeforeInitialization) {
  pic.line(0).pulse();
  EXPECT_FALSE(out.level);
  pic.master().write(1, 1, 0xa5);
  EXPECT_EQ(pic.master().read(1, 1), 0xa5u) << "the mask register is there";
}

TEST_F(PicTest, PrioritiesAndNonSpecificEoi) {
  init();
  pic.line(4).pulse();
  pic.line(1).pulse();
  EXPECT_EQ(irr(), 0x12u);
  EXPECT_EQ(acknowledge(), 0x21);
  EXPECT_EQ(isr(), 0x02u);
  EXPECT_EQ(irr(), 0x10u);
  EXPECT_FALSE(out.level) << "lower priorities wait";
  pic.line(0).pulse();
  EXPECT_EQ(acknowledge(), 0x20) << "a higher one nests";
  command(0x20);
  EXPECT_EQ(isr(), 0x02u);
  command(0x20);
  EXPECT_EQ(acknowledge(), 0x24);
  command(0x64);
  EXPECT_EQ(isr(), 0u) << "specific EOI";
}

TEST_F(PicTest, MaskAndSpurious) {
  init();
  pic.master().write(1, 1, 0x10);
  pic.line(4).pulse();
  EXPECT_FALSE(out.level);
  pic.master().write(1, 1, 0);
  EXPECT_TRUE(out.level);
  pic.master().write(1, 1, 0x10);
  EXPECT_EQ(pic.acknowledgeInterrupt(), 0x27);
  EXPECT_EQ(isr(), 0u) << "a spurious IRQ 7 is not in service";
}

TEST_F(PicTest, CascadedSlave) {
  init();
  pic.line(12).pulse();
  EXPECT_EQ(irr(), 0x04u);
  EXPECT_EQ(acknowledge(), 0x2c);
  EXPECT_EQ(isr(), 0x04u);
  pic.line(8).pulse();
  EXPECT_FALSE(out.level) << "the master is busy with IR2";
  pic.slave().write(0, 1, 0x20);
  command(0x20);
  EXPECT_EQ(acknowledge(), 0x28);
}

TEST_F(PicTest, SpecialFullyNestedLetsTheSlaveNest) {
  init(0x11);
  pic.line(12).pulse();
  EXPECT_EQ(acknowledge(), 0x2c);
  pic.line(8).pulse();
  EXPECT_EQ(acknowledge(), 0x28);
}

TEST_F(PicTest, SlaveSpurious) {
  init();
  pic.elcr().write(1, 1, 0x10);
  pic.line(12).set(true);
  EXPECT_TRUE(out.level);
  pic.line(12).set(false);
  EXPECT_FALSE(out.level);
  EXPECT_EQ(pic.acknowledgeInterrupt(), 0x27);
}

TEST_F(PicTest, LevelTriggeredByElcr) {
  init();
  pic.elcr().write(0, 2, 0xffff);
  EXPECT_EQ(pic.elcr().read(0, 2), 0xdef8u);
  pic.line(5).set(true);
  EXPECT_EQ(acknowledge(), 0x25);
  command(0x20);
  EXPECT_EQ(acknowledge(), 0x25) << "still high";
  pic.line(5).set(false);
  command(0x20);
  EXPECT_FALSE(out.level);
}

TEST_F(PicTest, AutomaticEoiAndRotation) {
  init(3);
  pic.line(3).pulse();
  EXPECT_EQ(acknowledge(), 0x23);
  EXPECT_EQ(isr(), 0u);
  command(0x80);  // rotate in automatic EOI
  pic.line(3).pulse();
  EXPECT_EQ(acknowledge(), 0x23);
  pic.line(3).pulse();
  pic.line(4).pulse();
  EXPECT_EQ(acknowledge(), 0x24) << "3 is the lowest now";
  EXPECT_EQ(acknowledge(), 0x23);
}

TEST_F(PicTest, SetPriorityAndRotateOnEoi) {
  init();
  command(0xc4);  // 4 is the lowest, 5 the highest
  pic.line(0).pulse();
  pic.line(5).pulse();
  EXPECT_EQ(acknowledge(), 0x25);
  command(0xa0);  // rotate on non-specific EOI
  pic.line(5).pulse();
  EXPECT_EQ(acknowledge(), 0x20);
  command(0xe0);  // rotate on specific EOI of 0
  EXPECT_EQ(acknowledge(), 0x25);
}

TEST_F(PicTest, SpecialMaskMode) {
  init();
  pic.line(1).pulse();
  EXPECT_EQ(acknowledge(), 0x21);
  pic.line(6).pulse();
  EXPECT_FALSE(out.level);
  pic.master().write(1, 1, 0x02);
  command(0x68);
  EXPECT_EQ(acknowledge(), 0x26) << "the masked one in service holds nothing";
  command(0x48);
  EXPECT_EQ(isr(), 0x42u);
}

TEST_F(PicTest, Poll) {
  init();
  pic.line(3).pulse();
  command(0x0c);
  EXPECT_EQ(pic.master().read(0, 1), 0x83u);
  EXPECT_EQ(isr(), 0x08u);
  EXPECT_FALSE(out.level);
  command(0x0c);
  EXPECT_EQ(pic.master().read(1, 1), 0u);
}

TEST_F(PicTest, ReinitializationClears) {
  init();
  pic.line(1).pulse();
  acknowledge();
  pic.line(3).pulse();
  pic.master().write(1, 1, 0x55);
  init();
  EXPECT_EQ(irr(), 0u);
  EXPECT_EQ(isr(), 0u);
  EXPECT_EQ(pic.master().read(1, 1), 0u);
  EXPECT_FALSE(out.level);
}

TEST_F(PicTest, SingleModeAndLevelMode) {
  pic.master().write(0, 1, 0x1a);  // level, single, no ICW4
  pic.master().write(1, 1, 0x40);
  pic.line(5).set(true);
  EXPECT_EQ(acknowledge(), 0x45);
  command(0x20);
  EXPECT_TRUE(out.level);
  pic.line(5).set(false);
  EXPECT_FALSE(out.level);
}

TEST_F(PicTest, ResetAndRestore) {
  init();
  pic.line(3).pulse();
  Pic::State state = pic.save();
  pic.reset();
  EXPECT_FALSE(out.level);
  pic.restore(state);
  EXPECT_EQ(acknowledge(), 0x23);
}

}  // namespace
}  // namespace lodge
