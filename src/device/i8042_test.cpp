// SPDX-License-Identifier: Apache-2.0
#include "device/i8042.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "device/fakes.h"
#include "device/reset_control.h"

namespace lodge {
namespace {

class I8042Test : public testing::Test {
 protected:
  unsigned status() { return static_cast<unsigned>(controller.command().read(0, 1)); }
  unsigned data() { return static_cast<unsigned>(controller.data().read(0, 1)); }
  void command(unsigned value) { controller.command().write(0, 1, value); }
  void write(unsigned value) { controller.data().write(0, 1, value); }
  unsigned ask(unsigned value) {
    command(value);
    EXPECT_EQ(status() & 1, 1u);
    unsigned answer = data();
    EXPECT_EQ(status() & 1, 0u);
    return answer;
  }

  FakeLine irq;
  int resets = 0;
  I8042 controller{irq, [this] { ++resets; }};
};

TEST_F(I8042Test, PulsingBit0ResetsTheMachine) {
  command(0xff);
  EXPECT_EQ(resets, 0);
  command(0xfe);
  EXPECT_EQ(resets, 1);
  command(0xf0);
  EXPECT_EQ(resets, 2);
}

TEST_F(I8042Test, OutputPort) {
  EXPECT_EQ(ask(0xd0), 3u);
  command(0xd1);
  write(0x01);
  EXPECT_EQ(ask(0xd0), 1u);
  command(0xdf);
  EXPECT_EQ(ask(0xd0), 3u);
  command(0xdd);
  EXPECT_EQ(ask(0xd0), 1u);
  EXPECT_EQ(resets, 0);
  command(0xd1);
  write(0x02);
  EXPECT_EQ(resets, 1);
}

TEST_F(I8042Test, TheA20GateIsTurnedHereAndAtPort92) {
  auto memory = std::move(*GuestMemory::create(2_MiB));
  int changes = 0;
  memory->setMapObserver([&] { ++changes; });
  A20Gate gate(*memory);
  SystemControlPortA portA(gate, [this] { ++resets; });
  controller.attachA20(gate);
  EXPECT_TRUE(gate.open());
  EXPECT_EQ(portA.read(0, 1), 2u);
  command(0xdd);
  EXPECT_FALSE(gate.open());
  EXPECT_EQ(memory->cpuAddressMask(), ~0x100000ull);
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(portA.read(0, 1), 0u);
  portA.write(0, 1, 2);
  EXPECT_TRUE(gate.open());
  EXPECT_EQ(ask(0xd0), 3u);
  command(0xd1);
  write(0x01);
  EXPECT_FALSE(gate.open());
  EXPECT_EQ(changes, 3);
  portA.write(0, 1, 0);
  EXPECT_EQ(changes, 3) << "nothing changed";
  controller.reset();
  EXPECT_TRUE(gate.open());
  EXPECT_EQ(resets, 0);
  portA.write(0, 1, 3);
  EXPECT_EQ(resets, 1);
}

TEST_F(I8042Test, Tests) {
  EXPECT_EQ(ask(0xaa), 0x55u);
  EXPECT_EQ(ask(0xab), 0u);
  EXPECT_EQ(ask(0xa9), 0u);
  EXPECT_EQ(ask(0xc0), 0x80u);
}

TEST_F(I8042Test, CommandByte) {
  EXPECT_EQ(ask(0x20), 0x24u);
  command(0x60);
  write(0x45);
  EXPECT_EQ(ask(0x20), 0x45u);
  command(0xad);
  command(0xa7);
  EXPECT_EQ(ask(0x20), 0x75u);
  command(0xae);
  command(0xa8);
  EXPECT_EQ(ask(0x20), 0x45u);
}

TEST_F(I8042Test, NobodyAtTheKeyboard) {
  command(0x60);
  write(1);
  write(0xff);  // keyboard reset
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(status() & 0x41, 0x41u);
  EXPECT_EQ(data(), 0xfeu);
  EXPECT_FALSE(irq.level);
  EXPECT_EQ(status() & 0x41, 0u);
  command(0xd4);
  write(0xf2);
  EXPECT_EQ(data(), 0xfeu);
  command(0xd2);
  write(0x5a);
  EXPECT_EQ(status() & 0x41, 0x01u);
  EXPECT_EQ(data(), 0x5au);
}

TEST_F(I8042Test, CommandAndDataAreToldApart) {
  command(0x20);
  EXPECT_EQ(status() & 8, 8u);
  data();
  write(0xed);
  EXPECT_EQ(status() & 8, 0u);
}

TEST_F(I8042Test, SaveAndReset) {
  command(0x60);
  write(1);
  write(0xff);
  I8042::State state = controller.save();
  controller.reset();
  EXPECT_FALSE(irq.level);
  controller.restore(state);
  EXPECT_TRUE(irq.level);
}

}  // namespace
}  // namespace lodge
