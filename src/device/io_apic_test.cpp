// SPDX-License-Identifier: Apache-2.0
#include "device/io_apic.h"

#include <gtest/gtest.h>

#include "device/fakes.h"

namespace lodge {
namespace {

constexpr std::uint64_t kLevel = 0x8000, kMasked = 0x1'0000, kRemoteIrr = 0x4000;

class IoApicTest : public testing::Test {
 protected:
  std::uint32_t reg(unsigned index) {
    apic.write(0, 4, index);
    return static_cast<std::uint32_t>(apic.read(0x10, 4));
  }
  void setReg(unsigned index, std::uint32_t value) {
    apic.write(0, 4, index);
    apic.write(0x10, 4, value);
  }
  void setEntry(unsigned pin, std::uint64_t value) {
    setReg(0x11 + 2 * pin, static_cast<std::uint32_t>(value >> 32));
    setReg(0x10 + 2 * pin, static_cast<std::uint32_t>(value));
  }
  std::uint64_t entry(unsigned pin) { return reg(0x10 + 2 * pin) | std::uint64_t{reg(0x11 + 2 * pin)} << 32; }

  FakeMessageSink sink;
  IoApic apic{sink, 1};
};

TEST_F(IoApicTest, RegistersAfterReset) {
  EXPECT_EQ(reg(0), 1u << 24);
  EXPECT_EQ(reg(1), 0x0017'0020u);
  EXPECT_EQ(reg(2), 1u << 24);
  for (unsigned pin = 0; pin < 24; ++pin) EXPECT_EQ(entry(pin), kMasked);
  EXPECT_EQ(reg(0x40), 0u);
  EXPECT_EQ(reg(0xff), 0u);
  EXPECT_EQ(apic.read(0, 4), 0xffu) << "IOREGSEL";
  EXPECT_EQ(apic.read(0x20, 4), 0u);
}

TEST_F(IoApicTest, WritableBits) {
  setReg(0, ~0u);
  EXPECT_EQ(reg(0), 0x0f00'0000u);
  setReg(1, ~0u);
  EXPECT_EQ(reg(1), 0x0017'0020u);
  setEntry(3, ~std::uint64_t{0});
  EXPECT_EQ(entry(3), 0xff00'0000'0001'afffu);
  apic.write(0x10, 1, 0x55);
  EXPECT_EQ(entry(3), 0xff00'0000'0001'afffu) << "IOWIN takes whole registers";
}

TEST_F(IoApicTest, EdgeSendsOncePerRise) {
  setEntry(4, 0x0200'0000'0000'0941);
  apic.line(4).set(true);
  apic.line(4).set(true);
  ASSERT_EQ(sink.sent.size(), 1u);
  const ApicMessage& m = sink.sent[0];
  EXPECT_EQ(m.destination, 2u);
  EXPECT_FALSE(m.wideDestination);
  EXPECT_TRUE(m.logical);
  EXPECT_EQ(m.mode, DeliveryMode::lowestPriority);
  EXPECT_EQ(m.vector, 0x41);
  EXPECT_FALSE(m.levelTriggered);
  EXPECT_TRUE(m.assertLevel);
  apic.line(4).pulse();
  apic.line(4).pulse();
  EXPECT_EQ(sink.sent.size(), 2u) << "it was high already";
  apic.endOfInterrupt(0x41);
  EXPECT_EQ(sink.sent.size(), 2u);
}

TEST_F(IoApicTest, MaskedEdgesAreLost) {
  setEntry(4, 0x41 | kMasked);
  apic.line(4).pulse();
  setEntry(4, 0x41);
  EXPECT_TRUE(sink.sent.empty());
  apic.line(4).pulse();
  EXPECT_EQ(sink.sent.size(), 1u);
}

TEST_F(IoApicTest, LevelWaitsForTheEoi) {
  setEntry(9, 0x51 | kLevel);
  apic.line(9).set(true);
  ASSERT_EQ(sink.sent.size(), 1u);
  EXPECT_TRUE(sink.sent[0].levelTriggered);
  EXPECT_EQ(entry(9), 0x51 | kLevel | kRemoteIrr);
  apic.line(9).set(false);
  apic.line(9).set(true);
  EXPECT_EQ(sink.sent.size(), 1u);
  apic.endOfInterrupt(0x50);
  EXPECT_EQ(sink.sent.size(), 1u);
  apic.endOfInterrupt(0x51);
  EXPECT_EQ(sink.sent.size(), 2u) << "still high";
  apic.line(9).set(false);
  apic.write(0x40, 4, 0x51);
  EXPECT_EQ(entry(9), 0x51 | kLevel);
  EXPECT_EQ(sink.sent.size(), 2u);
}

TEST_F(IoApicTest, MaskedLevelIsKept) {
  setEntry(9, 0x51 | kLevel | kMasked);
  apic.line(9).set(true);
  EXPECT_TRUE(sink.sent.empty());
  setEntry(9, 0x51 | kLevel);
  EXPECT_EQ(sink.sent.size(), 1u);
  setEntry(9, 0x51 | kLevel | kMasked);
  EXPECT_EQ(entry(9), 0x51 | kLevel | kMasked | kRemoteIrr);
  apic.endOfInterrupt(0x51);
  EXPECT_EQ(sink.sent.size(), 1u) << "masked while in service";
  setEntry(9, 0x51 | kLevel);
  EXPECT_EQ(sink.sent.size(), 2u);
}

TEST_F(IoApicTest, TurningEdgeDropsRemoteIrr) {
  setEntry(9, 0x51 | kLevel);
  apic.line(9).set(true);
  setEntry(9, 0x51 | kMasked);
  EXPECT_EQ(entry(9), 0x51 | kMasked);
  setEntry(9, 0x51 | kLevel);
  EXPECT_EQ(sink.sent.size(), 2u);
}

TEST_F(IoApicTest, UnacceptedLevelIsTriedAgain) {
  sink.accept = false;
  setEntry(9, 0x51 | kLevel);
  apic.line(9).set(true);
  EXPECT_EQ(entry(9), 0x51 | kLevel);
  sink.accept = true;
  setEntry(9, 0x0100'0000'0000'0051 | kLevel);
  EXPECT_EQ(entry(9), 0x0100'0000'0000'0051 | kLevel | kRemoteIrr);
}

TEST_F(IoApicTest, TwoPinsWithOneVector) {
  setEntry(9, 0x51 | kLevel);
  setEntry(10, 0x51 | kLevel);
  apic.line(9).set(true);
  apic.line(10).set(true);
  apic.line(9).set(false);
  apic.endOfInterrupt(0x51);
  EXPECT_EQ(sink.sent.size(), 3u);
  EXPECT_EQ(entry(9) & kRemoteIrr, 0u);
  EXPECT_EQ(entry(10) & kRemoteIrr, kRemoteIrr);
}

TEST_F(IoApicTest, NmiAndExtIntGoOutOnTheRise) {
  setEntry(0, 0x700 | kLevel);
  setEntry(1, 0x400 | kLevel);
  apic.line(0).set(true);
  apic.line(1).set(true);
  ASSERT_EQ(sink.sent.size(), 2u);
  EXPECT_EQ(sink.sent[0].mode, DeliveryMode::extInt);
  EXPECT_EQ(sink.sent[1].mode, DeliveryMode::nmi);
  EXPECT_EQ(entry(0) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, ResetMasksAndRestoreBringsBack) {
  setEntry(9, 0x51 | kLevel);
  apic.line(9).set(true);
  IoApic::State state = apic.save();
  apic.reset();
  EXPECT_EQ(entry(9), kMasked);
  apic.restore(state);
  EXPECT_EQ(entry(9), 0x51 | kLevel | kRemoteIrr);
  apic.endOfInterrupt(0x51);
  EXPECT_EQ(sink.sent.size(), 2u);
}

}  // namespace
}  // namespace lodge
