// SPDX-License-Identifier: Apache-2.0
#include "memory/io_bus.h"

#include <gtest/gtest.h>

#include <thread>

namespace lodge {
namespace {

/// Answers with its own number and the offset; takes down the last store.
struct Numbered : IoDevice {
  explicit Numbered(std::uint64_t n, bool answersLive = false) : number(n), live(answersLive) {}
  std::uint64_t read(std::uint64_t offset, unsigned) override { return number << 8 | offset; }
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    last = {offset, size, value};
    ++stores;
  }
  bool readLive(std::uint64_t offset, unsigned size, std::uint64_t& value) override {
    if (live) value = read(offset, size);
    return live;
  }
  bool writeLive(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    if (live) write(offset, size, value);
    return live;
  }
  std::uint64_t number;
  bool live;
  unsigned stores = 0;
  struct Store {
    std::uint64_t offset, size, value;
    bool operator==(const Store&) const = default;
  } last{};
};

TEST(IoBusTest, AccessesGoToTheDeviceThatAnswersThere) {
  IoBus bus("port I/O");
  Numbered low(1), high(2);
  ASSERT_TRUE(bus.add(0x100, 16, high, "high"));
  ASSERT_TRUE(bus.add(0x10, 16, low, "low"));
  EXPECT_EQ(bus.read(0x10, 1), 0u);  // of the number, the first byte
  EXPECT_EQ(bus.read(0x1f, 2), 0xff0fu) << "across the end: a byte of each";
  EXPECT_EQ(bus.read(0x104, 2), 0x204u);
  EXPECT_EQ(bus.read(0x0f, 1), 0xffu);
  EXPECT_EQ(bus.read(0x20, 4), 0xffff'ffffu);
  EXPECT_EQ(bus.read(0x110, 8), ~std::uint64_t{0});
  bus.write(0x102, 4, 0x12345678);
  EXPECT_EQ(high.last, (Numbered::Store{2, 4, 0x12345678}));
  bus.write(0x0f, 2, 0xabcd);
  EXPECT_EQ(low.last, (Numbered::Store{0, 1, 0xab}));
  bus.write(0x200, 1, 0);
  EXPECT_EQ(low.stores + high.stores, 2u);
}

TEST(IoBusTest, OverlapIsRefusedByName) {
  IoBus bus("memory");
  Numbered one(1), other(2);
  ASSERT_TRUE(bus.add(0x1000, 0x100, one, "one"));
  for (std::uint64_t base : {0xfffu, 0x1000u, 0x10ffu}) {
    Status s = bus.add(base, 2, other, "other");
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().kind(), ErrorKind::alreadyExists);
    EXPECT_NE(s.error().message().find("overlaps one at 0x1000"), std::string::npos) << s.error().message();
  }
  ASSERT_TRUE(bus.add(0x1100, 2, other, "other"));
  bus.remove(0x1000);
  EXPECT_EQ(bus.read(0x1000, 1), 0xffu);
  EXPECT_EQ(bus.read(0x1101, 2) & 0xff, 1u);
}

TEST(IoBusTest, LiveAccessesReachOnlyDevicesThatAnswerSo) {
  IoBus bus("port I/O");
  Numbered parked(1), live(2, true);
  ASSERT_TRUE(bus.add(0x10, 4, parked, "parked"));
  ASSERT_TRUE(bus.add(0x14, 4, live, "live"));
  std::uint64_t value = 0;
  EXPECT_FALSE(bus.readLive(0x10, 1, value));
  EXPECT_FALSE(bus.writeLive(0x10, 1, 1));
  EXPECT_FALSE(bus.readLive(0x20, 1, value)) << "nobody's";
  EXPECT_FALSE(bus.writeLive(0x17, 2, 1)) << "across the end";
  EXPECT_TRUE(bus.readLive(0x15, 2, value));
  EXPECT_EQ(value, 0x201u);
  EXPECT_TRUE(bus.writeLive(0x16, 1, 7));
  EXPECT_EQ(live.last, (Numbered::Store{2, 1, 7}));
  EXPECT_EQ(live.stores, 1u);
  EXPECT_EQ(parked.stores, 0u);
}

// More ranges than there was room for at first, added and removed while others look: what stays is found all the time.
TEST(IoBusTest, LookupsGoOnWhileRangesChange) {
  IoBus bus("memory");
  Numbered stays(0x55);
  std::vector<std::unique_ptr<Numbered>> devices;
  ASSERT_TRUE(bus.add(0x8000, 16, stays, "stays"));
  std::atomic<bool> done{false};
  std::atomic<unsigned> wrong{0}, looked{0};
  std::vector<std::jthread> lookers;
  for (unsigned n = 0; n < 3; ++n) {
    lookers.emplace_back([&] {
      while (!done) {
        if (bus.read(0x8004, 2) != 0x5504) ++wrong;
        if (std::uint64_t other = bus.read(0x100, 2); other != 0xffff && other != 0) ++wrong;
        ++looked;
      }
    });
  }
  while (looked < 100) std::this_thread::yield();
  for (std::uint64_t n = 0; n < 300; ++n) {
    devices.push_back(std::make_unique<Numbered>(n));
    ASSERT_TRUE(bus.add(n < 150 ? n * 0x100 + 0x100 - n * 0xfe : 0x9000 + n * 16, 2, *devices.back(), "one"));
    if (n % 3 != 0) continue;
    bus.remove(0x100);
    ASSERT_TRUE(bus.add(0x100, 2, *devices.front(), "first"));
  }
  unsigned before = looked;
  while (looked < before + 100) std::this_thread::yield();
  done = true;
  lookers.clear();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(bus.read(0x9000 + 299 * 16, 2), 299u << 8 & 0xffff);
}

}  // namespace
}  // namespace lodge
