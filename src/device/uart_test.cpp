// SPDX-License-Identifier: Apache-2.0
#include "device/uart.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"

namespace lodge {
namespace {

struct Line : InterruptLine {
  void set(bool value) override { level = value; }
  bool level = false;
};

struct UartTest : testing::Test {
  FakeClock clock;
  Line line;
  std::string out;
  Uart uart{line, clock, [this](const char* d, std::size_t n) { out.append(d, n); }};

  std::uint8_t get(unsigned r) { return static_cast<std::uint8_t>(uart.read(r, 1)); }
  void put(unsigned r, unsigned v) { uart.write(r, 1, v); }
  void send(std::string_view text) { EXPECT_EQ(uart.input(text.data(), text.size()), text.size()); }
};

TEST_F(UartTest, outputIsBatchedAndInOrder) {
  for (char c : std::string("hello")) put(0, static_cast<unsigned>(c));
  EXPECT_EQ(out, "");
  EXPECT_EQ(get(5) & 0x60, 0x60);
  clock.advance(Uart::kOutputDelay);
  EXPECT_EQ(out, "hello");
  for (std::size_t i = 0; i < Uart::kOutputBatch; ++i) put(0, 'x');
  EXPECT_EQ(out.size(), 5 + Uart::kOutputBatch);
}

TEST_F(UartTest, receiveInterruptsThroughOut2) {
  put(2, 1);
  put(1, 1);
  send("ab");
  EXPECT_FALSE(line.level) << "OUT2 is off";
  put(4, 8);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(2), 0xc4) << "trigger level 1";
  EXPECT_EQ(get(0), 'a');
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(0), 'b');
  EXPECT_FALSE(line.level);
  EXPECT_EQ(get(2), 0xc1);
  EXPECT_EQ(get(5) & 1, 0);
}

TEST_F(UartTest, belowTheTriggerLevelItIsATimeout) {
  put(2, 0xc1);
  put(1, 1);
  put(4, 8);
  send("a");
  EXPECT_EQ(get(2), 0xcc);
}

TEST_F(UartTest, transmitterEmptyInterruptEndsWithItsIdentification) {
  put(4, 8);
  put(1, 2);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(2), 0x02);
  EXPECT_FALSE(line.level);
  put(0, 'x');
  EXPECT_TRUE(line.level);
}

TEST_F(UartTest, backlogIsBoundedAndRoomIsAnnounced) {
  int rooms = 0;
  uart.onRoom([&] { ++rooms; });
  put(2, 1);
  std::string much(10000, 'y');
  std::size_t taken = uart.input(much.data(), much.size());
  EXPECT_GE(taken, Uart::kBacklogBytes);
  EXPECT_LE(taken, Uart::kBacklogBytes + Uart::kFifoBytes);
  std::size_t read = 0;
  while ((get(5) & 1) != 0) {
    EXPECT_EQ(get(0), 'y');
    ++read;
  }
  EXPECT_EQ(read, taken);
  EXPECT_EQ(rooms, 1);
}

TEST_F(UartTest, loopbackReturnsBytesAndModemLines) {
  put(4, 0x10 | 0x0f);
  EXPECT_EQ(get(6) & 0xf0, 0xf0);
  put(0, 0x5a);
  EXPECT_EQ(get(5) & 1, 1);
  EXPECT_EQ(get(0), 0x5a);
  EXPECT_EQ(out, "");
  put(4, 0x10);
  EXPECT_EQ(get(6) & 0xf0, 0);
}

TEST_F(UartTest, divisorLatchAndScratch) {
  put(3, 0x83);
  put(0, 0x34);
  put(1, 0x12);
  EXPECT_EQ(get(0), 0x34);
  EXPECT_EQ(get(1), 0x12);
  put(3, 3);
  put(7, 0xa5);
  EXPECT_EQ(get(7), 0xa5);
  EXPECT_EQ(get(1), 0);
}

}  // namespace
}  // namespace lodge
