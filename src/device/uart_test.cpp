// SPDX-License-Identifier: Apache-2.0
#include "device/uart.h"

#include <gtest/gtest.h>

#include <string_view>

#include "base/fake_clock.h"
#include "device/fakes.h"

namespace lodge {
namespace {

// Registers.
constexpr unsigned kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScratch = 7;
constexpr unsigned kRts = 2, kOut2 = 8, kLoopback = 16;

struct UartTest : testing::Test {
  FakeClock clock;
  FakeLine line;
  std::string out;
  Uart uart{line, clock, [this](const char* d, std::size_t n) { out.append(d, n); }};

  unsigned get(unsigned r) { return static_cast<unsigned>(uart.read(r, 1)); }
  void put(unsigned r, unsigned v) { uart.write(r, 1, v); }
  void send(std::string_view text) { EXPECT_EQ(uart.input(text.data(), text.size()), text.size()); }
  std::string drain() {
    std::string text;
    while ((get(kLsr) & 1) != 0) text.push_back(static_cast<char>(get(kData)));
    return text;
  }
};

TEST_F(UartTest, RegistersAfterReset) {
  EXPECT_EQ(get(kIer), 0u);
  EXPECT_EQ(get(kIir), 0x01u);
  EXPECT_EQ(get(kLcr), 0u);
  EXPECT_EQ(get(kMcr), 0u);
  EXPECT_EQ(get(kLsr), 0x60u);
  EXPECT_EQ(get(kMsr), 0xb0u);
  EXPECT_EQ(get(kData), 0u);
}

TEST_F(UartTest, WritableBits) {
  put(kIer, 0xff);
  EXPECT_EQ(get(kIer), 0x0fu);
  put(kMcr, 0xff);
  EXPECT_EQ(get(kMcr), 0x1fu);
  put(kMcr, 0);
  put(kLsr, 0xff);
  put(kMsr, 0xff);
  EXPECT_EQ(get(kLsr), 0x60u);
  put(kScratch, 0xa5);
  EXPECT_EQ(get(kScratch), 0xa5u);
}

TEST_F(UartTest, DivisorLatch) {
  put(kLcr, 0x83);
  EXPECT_EQ(get(0), 12u);
  put(0, 0x34);
  put(1, 0x12);
  EXPECT_EQ(get(0), 0x34u);
  EXPECT_EQ(get(1), 0x12u);
  put(kLcr, 3);
  EXPECT_EQ(get(kIer), 0u);
  EXPECT_EQ(out, "");
}

TEST_F(UartTest, OutputIsBatchedAndInOrder) {
  for (char c : std::string("hello")) put(kData, static_cast<unsigned char>(c));
  EXPECT_EQ(out, "");
  EXPECT_EQ(get(kLsr) & 0x60, 0x60u);
  clock.advance(Uart::kOutputDelay);
  EXPECT_EQ(out, "hello");
  for (std::size_t i = 0; i < Uart::kOutputBatch; ++i) put(kData, 'x');
  EXPECT_EQ(out.size(), 5 + Uart::kOutputBatch);
  put(kData, 'y');
  uart.flush();
  EXPECT_EQ(out.back(), 'y');
}

TEST_F(UartTest, WideAccessesAreBytesInARow) {
  put(kLcr, 0x80);
  uart.write(0, 2, 0x1234);
  EXPECT_EQ(uart.read(0, 4), 0x80011234u) << "divisor, identification, line control";
}

TEST_F(UartTest, ReceiveInterruptsThroughOut2) {
  put(kFcr, 1);
  put(kIer, 1);
  send("ab");
  EXPECT_FALSE(line.level) << "OUT2 is off";
  put(kMcr, kOut2);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(kIir), 0xc4u) << "trigger level 1";
  EXPECT_EQ(get(kData), 'a' + 0u);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(kData), 'b' + 0u);
  EXPECT_FALSE(line.level);
  EXPECT_EQ(get(kIir), 0xc1u);
  EXPECT_EQ(get(kLsr) & 1, 0u);
}

TEST_F(UartTest, TriggerLevelsAndTheTimeout) {
  const std::pair<unsigned, std::size_t> levels[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};
  put(kIer, 1);
  for (auto [control, level] : levels) {
    put(kFcr, control | 2);
    clock.advance(kNanosecondsPerSecond);
    send(std::string(level, 'x'));
    EXPECT_EQ(get(kIir), 0xc4u) << level;
    get(kData);
    if (level > 1) {
      EXPECT_EQ(get(kIir), 0xccu) << level;
    }
    drain();
    EXPECT_EQ(get(kIir), 0xc1u) << level;
  }
}

TEST_F(UartTest, WithoutFifosOneByteAtATime) {
  put(kIer, 1);
  send("ab");
  EXPECT_EQ(get(kIir), 0x04u);
  EXPECT_EQ(drain(), "a");
  clock.advance(100'000);
  EXPECT_EQ(drain(), "b");
}

TEST_F(UartTest, TransmitterEmptyInterruptEndsWithItsIdentification) {
  put(kMcr, kOut2);
  put(kIer, 2);
  EXPECT_TRUE(line.level) << "empty when it is enabled";
  EXPECT_EQ(get(kIir), 0x02u);
  EXPECT_FALSE(line.level);
  put(kData, 'x');
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(kIir), 0x02u);
  EXPECT_EQ(get(kIir), 0x01u);
  put(kIer, 0);
  put(kIer, 2);
  EXPECT_EQ(get(kIir), 0x02u) << "enabled again";
}

TEST_F(UartTest, InterruptPriorities) {
  put(kMcr, kLoopback);
  put(kIer, 0x0f);
  put(kData, 'a');
  put(kData, 'b');  // overrun without FIFOs
  EXPECT_EQ(get(kIir), 0x06u);
  EXPECT_EQ(get(kLsr), 0x63u);
  EXPECT_EQ(get(kIir), 0x04u);
  get(kData);
  EXPECT_EQ(get(kIir), 0x02u);
  EXPECT_EQ(get(kIir), 0x00u) << "modem status changed with loopback";
  get(kMsr);
  EXPECT_EQ(get(kIir), 0x01u);
}

TEST_F(UartTest, LoopbackReturnsBytesAndModemLines) {
  put(kMcr, kLoopback | 0x0f);
  EXPECT_EQ(get(kMsr) & 0xf0, 0xf0u);
  put(kData, 0x5a);
  EXPECT_EQ(get(kLsr) & 1, 1u);
  EXPECT_EQ(get(kData), 0x5au);
  clock.advance(kNanosecondsPerSecond);
  EXPECT_EQ(out, "");
  put(kMcr, kLoopback);
  EXPECT_EQ(get(kMsr), 0x0fu) << "three deltas and the trailing edge of RI";
  EXPECT_EQ(get(kMsr), 0u);
  put(kMcr, kLoopback | 4);
  EXPECT_EQ(get(kMsr), 0x40u) << "no delta for RI's leading edge";
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, LoopbackFifoOverrun) {
  put(kFcr, 1);
  put(kMcr, kLoopback);
  for (unsigned n = 0; n < 17; ++n) put(kData, n);
  EXPECT_EQ(get(kLsr) & 2, 2u);
  EXPECT_EQ(get(kLsr) & 2, 0u);
  EXPECT_EQ(drain().size(), 16u);
}

TEST_F(UartTest, FifoClear) {
  put(kFcr, 1);
  put(kMcr, kRts);
  send("abc");
  put(kFcr, 3);
  EXPECT_EQ(drain(), "");
  clock.advance(kNanosecondsPerSecond);
  send("abc");
  put(kFcr, 0);
  EXPECT_EQ(drain(), "") << "switching FIFOs clears them";
}

TEST_F(UartTest, InputWaitsUntilTheGuestWantsIt) {
  put(kFcr, 1);
  send("early");
  EXPECT_EQ(drain(), "");
  put(kMcr, kLoopback | kRts);
  EXPECT_EQ(drain(), "");
  put(kMcr, kRts);
  EXPECT_EQ(drain(), "early");
  put(kMcr, 0);
  send("held");
  EXPECT_EQ(drain(), "");
  put(kIer, 1);
  clock.advance(1'000'000);
  EXPECT_EQ(drain(), "held");
}

TEST_F(UartTest, InputComesAtTheSpeedOfALine) {
  put(kFcr, 1);
  put(kIer, 1);
  put(kMcr, kRts | kOut2);
  send(std::string(1000, 'z'));
  EXPECT_EQ(drain().size(), 16u);
  EXPECT_FALSE(line.level);
  clock.advance(1'000'000);
  EXPECT_EQ(drain(), "");
  clock.advance(500'000);
  EXPECT_TRUE(line.level);
  std::size_t got = 16 + drain().size();
  for (int ms = 0; ms < 100; ++ms) {
    clock.advance(1'000'000);
    got += drain().size();
  }
  EXPECT_EQ(got, 1000u) << "about 11000 characters a second";
}

TEST_F(UartTest, BacklogIsBoundedAndRoomIsAnnounced) {
  int rooms = 0;
  uart.onRoom([&] { ++rooms; });
  put(kFcr, 1);
  put(kMcr, kRts);
  std::string much(10000, 'y');
  std::size_t taken = uart.input(much.data(), much.size());
  EXPECT_GE(taken, Uart::kBacklogBytes);
  EXPECT_LE(taken, Uart::kBacklogBytes + Uart::kFifoBytes);
  std::size_t read = 0;
  while (read < taken) {
    std::string some = drain();
    if (some.empty()) clock.advance(1'000'000);
    read += some.size();
  }
  EXPECT_EQ(read, taken);
  EXPECT_EQ(rooms, 1);
}

TEST_F(UartTest, ResetKeepsWhatTheHostGave) {
  put(kMcr, kOut2);
  put(kIer, 2);
  EXPECT_TRUE(line.level);
  put(kData, 'q');
  send("later");
  uart.reset();
  EXPECT_FALSE(line.level);
  EXPECT_EQ(out, "q");
  put(kFcr, 1);
  put(kMcr, kRts);
  EXPECT_EQ(drain(), "later");
}

TEST_F(UartTest, SaveAndRestore) {
  put(kFcr, 1);
  put(kIer, 1);
  put(kMcr, kOut2);
  send("ab");
  Uart::State state = uart.save();
  uart.reset();
  uart.restore(state);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(drain(), "ab");
}

}  // namespace
}  // namespace lodge
