// SPDX-License-Identifier: Apache-2.0
#include "virtio/input.h"

#include <gtest/gtest.h>

#include "virtio/driver_kit.h"

namespace lodge::virtio {
namespace {

using testing::CountingTransport;
using testing::DriverQueue;

class Tablet : public ::testing::Test {
 protected:
  Tablet() { device_.attach(transport_); }
  void start() {
    bool accepted = false;
    device_.enableQueue(0, queue_.setup(), accepted);
    ASSERT_TRUE(accepted);
    device_.activate(0);
  }
  void give(unsigned buffers) {
    for (unsigned n = 0; n < buffers; ++n) queue_.add({{0x8000 + 8 * (given_++ % 8), 8, true}});
    device_.notify(0);
  }
  /// type << 16 | code of the next event, and its value.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> take() {
    if (!queue_.take()) return std::nullopt;
    std::uint64_t at = 0x8000 + 8 * (taken_++ % 8);
    auto head = queue_.get<std::uint32_t>(at);
    return std::pair{head << 16 | head >> 16, queue_.get<std::uint32_t>(at + 4)};
  }
  using Event = std::pair<std::uint32_t, std::uint32_t>;

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  DriverQueue queue_{*memory_, 0x1000, false};
  CountingTransport transport_;
  TabletDevice device_{*memory_};
  std::uint64_t given_ = 0, taken_ = 0;
};

TEST_F(Tablet, TellsWhatItCanDo) {
  device_.writeConfig(0, 1, 0x11);
  device_.writeConfig(1, 1, 3);
  EXPECT_EQ(device_.readConfig(2, 1), 1u);
  EXPECT_EQ(device_.readConfig(8, 1), 3u) << "two axes";
  device_.writeConfig(0, 1, 0x12);
  device_.writeConfig(1, 1, 1);
  EXPECT_EQ(device_.readConfig(12, 4), 0x7fffu);
  device_.writeConfig(0, 1, 0x77);
  EXPECT_EQ(device_.readConfig(2, 1), 0u);
  EXPECT_EQ(device_.readConfig(1000, 4), 0u);
}

TEST_F(Tablet, SaysWhatChanged) {
  EXPECT_FALSE(device_.move(1, 2, 0, 0)) << "nobody listens";
  start();
  give(8);
  EXPECT_TRUE(device_.move(100, 200, 1, 0));
  EXPECT_EQ(take(), Event(0x30000, 100));
  EXPECT_EQ(take(), Event(0x30001, 200));
  EXPECT_EQ(take(), Event(0x10110, 1));
  EXPECT_EQ(take(), Event(0, 0));
  EXPECT_EQ(transport_.interrupts, 1);
  EXPECT_TRUE(device_.move(100, 200, 1, 0));
  EXPECT_FALSE(take()) << "nothing moved";
  EXPECT_TRUE(device_.move(100, 201, 0, -1));
  EXPECT_EQ(take(), Event(0x30001, 201));
  EXPECT_EQ(take(), Event(0x10110, 0));
  EXPECT_EQ(take(), Event(0x20008, ~0u));
  EXPECT_EQ(take(), Event(0, 0));
}

TEST_F(Tablet, DoesWithoutItsQueue) {
  device_.activate(0);
  EXPECT_TRUE(device_.move(1, 2, 0, 0));
  device_.notify(0);
  device_.notify(1);
  EXPECT_EQ(transport_.interrupts, 0);
}

TEST_F(Tablet, WaitsForBuffersButNotForEver) {
  start();
  for (std::uint32_t n = 1; n < 1000; ++n) EXPECT_TRUE(device_.move(n, n, 0, 0));
  EXPECT_FALSE(take());
  give(3);
  EXPECT_EQ(take(), Event(0x30000, 1));
  EXPECT_EQ(take(), Event(0x30001, 1));
  EXPECT_EQ(take(), Event(0, 0));
  device_.reset();
  EXPECT_FALSE(device_.move(5, 5, 0, 0));
}

}  // namespace
}  // namespace lodge::virtio
