// SPDX-License-Identifier: Apache-2.0
#include "net/vhost_ring.h"

#include <gtest/gtest.h>

#include <array>

#include "net/vhost_kit.h"

namespace lodge {
namespace {

using testing::RingWorker;

struct VhostRingTest : ::testing::Test {
  VhostRing ring;
  RingWorker worker{ring};
  std::array<char, 64> bytes{};
  iovec piece(std::size_t from, std::size_t length) { return {&bytes[from], length}; }
};

TEST_F(VhostRingTest, GivesChainsInTheirOrderAndTakesThemBackInAny) {
  std::vector<iovec> three = {piece(0, 1), piece(1, 2), piece(3, 3)}, one = {piece(6, 4)};
  auto a = ring.add(three, one), b = ring.add({}, one), c = ring.add(one, {});
  ASSERT_TRUE(a && b && c);
  auto first = worker.next(), second = worker.next(), third = worker.next();
  ASSERT_TRUE(first && second && third);
  EXPECT_FALSE(worker.next());
  EXPECT_EQ(first->id, *a);
  ASSERT_EQ(first->readable.size(), 3u);
  ASSERT_EQ(first->writable.size(), 1u);
  EXPECT_EQ(first->readable[2].iov_base, &bytes[3]);
  EXPECT_EQ(first->readable[2].iov_len, 3u);
  EXPECT_EQ(first->writable[0].iov_base, &bytes[6]);
  EXPECT_TRUE(second->readable.empty());
  EXPECT_FALSE(ring.take());
  worker.done(*b, 7);
  worker.done(*a, 4);
  auto used = ring.take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, *b);
  EXPECT_EQ(used->written, 7u);
  EXPECT_EQ(ring.take()->id, *a);
  EXPECT_FALSE(ring.take());
  EXPECT_EQ(ring.reset(), std::vector<std::uint16_t>{*c});
}

TEST_F(VhostRingTest, IsFullAndGoesRound) {
  std::vector<iovec> four(4, piece(0, 8));
  EXPECT_FALSE(ring.add({}, {}));
  EXPECT_FALSE(ring.add(std::vector<iovec>(VhostRing::kSize + 1, piece(0, 1)), {}));
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint16_t> ids;
    while (auto id = ring.add(four, {})) ids.push_back(*id);
    ASSERT_EQ(ids.size(), VhostRing::kSize / 4u);
    for (std::uint16_t id : ids) {
      auto chain = worker.next();
      ASSERT_TRUE(chain);
      ASSERT_EQ(chain->id, id);
      ASSERT_EQ(chain->readable.size(), 4u);
      worker.done(id, 0);
    }
    for (std::uint16_t id : ids) ASSERT_EQ(ring.take()->id, id);
  }
}

TEST_F(VhostRingTest, KicksOnlyWhereAsked) {
  EXPECT_TRUE(ring.kickWanted());
  worker.wantKicks(false);
  EXPECT_FALSE(ring.kickWanted());
}

TEST_F(VhostRingTest, WhatTheWorkerMakesUpIsNotTaken) {
  std::vector<iovec> one = {piece(0, 1)};
  auto id = ring.add(one, {});
  worker.done(static_cast<std::uint16_t>(*id + 1), 9);
  EXPECT_FALSE(ring.take());
  worker.done(*id, 0);
  EXPECT_EQ(ring.take()->id, *id);
  worker.done(*id, 0);
  EXPECT_FALSE(ring.take());
}

}  // namespace
}  // namespace lodge
