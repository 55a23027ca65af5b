// SPDX-License-Identifier: Apache-2.0
#include "virtio/virtqueue.h"

#include <gtest/gtest.h>

#include "virtio/driver_kit.h"

namespace lodge::virtio {
namespace {

using testing::Buffer;
using testing::DriverQueue;

struct VirtQueueTest : ::testing::TestWithParam<bool> {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue driver{*memory, 0x1000, GetParam()};
  VirtQueue queue{*memory};
  void SetUp() override { ASSERT_TRUE(queue.enable(driver.setup())); }
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtQueueTest, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "packed" : "split"; });

TEST_P(VirtQueueTest, chainsComeInOrderAndGoBackInAny) {
  Chain empty;
  EXPECT_EQ(queue.pop(empty), VirtQueue::Pop::empty);
  for (int round = 0; round < 100; ++round) {
    auto a = driver.add({{0x8000, 16, false}, {0x9000, 32, true}});
    auto b = driver.add({{0xa000, 8, true}}, round % 2 == 1, 0xb000);
    Chain first, second;
    ASSERT_EQ(queue.pop(first), VirtQueue::Pop::chain);
    ASSERT_EQ(queue.pop(second), VirtQueue::Pop::chain);
    EXPECT_EQ(first.readableBytes, 16u);
    EXPECT_EQ(first.writableBytes, 32u);
    EXPECT_EQ(first.readable[0].iov_base, memory->span(Gpa{0x8000}, 16));
    EXPECT_EQ(second.readable.size(), 0u);
    queue.push(std::move(second), 8);
    queue.push(std::move(first), 5);
    auto used = driver.take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, b);
    EXPECT_EQ(used->written, 8u);
    used = driver.take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, a);
    EXPECT_FALSE(driver.take());
  }
}

TEST_P(VirtQueueTest, chainsOfOneFrameAreSeenTogether) {
  for (int round = 0; round < 20; ++round) {
    std::uint16_t ids[3];
    Chain chains[3];
    for (int i = 0; i < 3; ++i) {
      ids[i] = driver.add({{0x8000u + 0x1000 * static_cast<unsigned>(i), 64, true}});
      ASSERT_EQ(queue.pop(chains[i]), VirtQueue::Pop::chain);
    }
    queue.push(std::move(chains[0]), 64, true);
    EXPECT_FALSE(driver.take());
    queue.push(std::move(chains[1]), 64, true);
    EXPECT_FALSE(driver.take());
    queue.push(std::move(chains[2]), 1);
    for (std::uint16_t id : ids) {
      auto used = driver.take();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->id, id);
    }
    EXPECT_FALSE(driver.take());
  }
}

TEST_P(VirtQueueTest, notificationsAreArmedWithoutARace) {
  EXPECT_FALSE(queue.armNotification());
  driver.add({{0x8000, 16, false}});
  EXPECT_TRUE(queue.armNotification()) << "what came before arming is seen";
}

TEST_P(VirtQueueTest, interruptsAreSuppressedAsTheDriverWishes) {
  driver.add({{0x8000, 1, true}});
  Chain chain;
  ASSERT_EQ(queue.pop(chain), VirtQueue::Pop::chain);
  EXPECT_FALSE(queue.interruptWanted()) << "nothing was pushed";
  queue.push(std::move(chain), 1);
  if (GetParam()) {
    driver.put<std::uint16_t>(driver.setup().driverArea + 2, 1);  // events off
  } else {
    driver.put<std::uint16_t>(driver.setup().driverArea + 4 + 2 * DriverQueue::kSize, 5);  // used_event: later
  }
  EXPECT_FALSE(queue.interruptWanted());
}

TEST_P(VirtQueueTest, hostileDescriptorsBreakTheQueueForGood) {
  struct Case {
    const char* what;
    std::vector<Buffer> buffers;
  };
  const Case cases[] = {
      {"outside RAM", {{0x10000000, 16, false}}},
      {"across the end of RAM", {{1_MiB - 8, 16, true}}},
      {"wraps around", {{~0ull - 4, 16, true}}},
      {"readable after writable", {{0x8000, 4, true}, {0x9000, 4, false}}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    DriverQueue d(*memory, 0x4000, GetParam());
    ASSERT_TRUE(queue.enable(d.setup()));
    d.add(c.buffers);
    Chain chain;
    EXPECT_EQ(queue.pop(chain), VirtQueue::Pop::broken);
    EXPECT_EQ(queue.pop(chain), VirtQueue::Pop::broken);
    EXPECT_TRUE(queue.broken());
  }
}

TEST_P(VirtQueueTest, badAreasAreRefused) {
  QueueSetup s = driver.setup();
  s.descriptors = 1_MiB - 16;
  EXPECT_FALSE(queue.enable(s));
  s = driver.setup();
  s.descriptors += 4;
  EXPECT_FALSE(queue.enable(s));
  s = driver.setup();
  s.size = 0;
  EXPECT_FALSE(queue.enable(s));
}

TEST(SplitRing, loopsAndRunawayIndicesAreSeen) {
  auto memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue driver(*memory, 0x1000, false);
  VirtQueue queue(*memory);
  ASSERT_TRUE(queue.enable(driver.setup()));
  driver.put(0x1000, Descriptor{0x8000, 4, descriptor::next, 1});
  driver.put(0x1010, Descriptor{0x8000, 4, descriptor::next, 0});
  driver.put<std::uint16_t>(driver.setup().driverArea + 2, 1);
  Chain chain;
  EXPECT_EQ(queue.pop(chain), VirtQueue::Pop::broken);
  ASSERT_TRUE(queue.enable(driver.setup()));
  driver.put<std::uint16_t>(driver.setup().driverArea + 2, 100);
  EXPECT_EQ(queue.pop(chain), VirtQueue::Pop::broken);
}

}  // namespace
}  // namespace lodge::virtio
