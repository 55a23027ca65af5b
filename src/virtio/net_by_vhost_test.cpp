// SPDX-License-Identifier: Apache-2.0
#include "virtio/net_by_vhost.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "net/vhost_kit.h"
#include "state/archive.h"
#include "virtio/net_kit.h"

namespace lodge::virtio {
namespace {

using lodge::testing::RingWorker;

/// One pair of queues whose kernel is the test.
class Worker : public VhostNet {
 public:
  unsigned pairs() const override { return 1; }
  Status start(std::span<const std::byte> memory, const Driver& d) override {
    if (refuse) return Error(ErrorKind::io, "no");
    ++starts;
    running = true;
    bytes = memory;
    driver = d;
    for (auto& w : workers) w.restart();
    return {};
  }
  void stop() override { running = false; }
  VhostRing& ring(unsigned, Direction direction) override { return rings[direction]; }
  void kick(unsigned, Direction direction) override { kicks += rings[direction].kickWanted() ? 1 : 0; }
  void onUsed(std::function<void(unsigned)> function) override { used = std::move(function); }
  void setFilter(const std::vector<MacAddress>& addresses, bool all) override { filter = addresses, groups = all; }
  void usePairs(unsigned count) override { inUse = count; }

  std::array<VhostRing, 2> rings;
  std::array<RingWorker, 2> workers{RingWorker{rings[0]}, RingWorker{rings[1]}};
  std::span<const std::byte> bytes;
  Driver driver;
  std::function<void(unsigned)> used;
  std::vector<MacAddress> filter;
  bool refuse = false, running = false, groups = false;
  unsigned starts = 0, kicks = 0, inUse = 0;
};

class Backend : public VhostBackend {
 public:
  VhostNet& vhost() override { return worker; }
  Worker worker;
};

struct NetByVhost : testing::NetFixture {
  Backend* backend = new Backend;
  Worker& kernel = backend->worker;
  NetDevice device{*memory, *loop, std::unique_ptr<NetBackend>(backend), kMac, kPairs};
  NetDevice& card() override { return device; }

  void offer(unsigned queue, std::uint64_t at, std::uint32_t bytes, bool writable) {
    queues[queue]->add({{kBuffers + at, bytes, writable}});
    notify(queue);
  }
  /// The kernel has served something.
  void serve() {
    onLoop([&] { kernel.used(0); });
  }
  void* host(std::uint64_t at) { return memory->deviceView() + kBuffers + at; }
};
INSTANTIATE_TEST_SUITE_P(Rings, NetByVhost, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

TEST_P(NetByVhost, BuffersGoToTheKernelAndComeBack) {
  EXPECT_EQ(kernel.starts, 1u);
  EXPECT_TRUE(kernel.driver.mergeable && kernel.driver.checksum && kernel.driver.tcp4 && kernel.driver.tcp6);
  EXPECT_EQ(kernel.bytes.data(), memory->deviceView());
  offer(0, 0, 2048, true);
  offer(0, 0x800, 2048, true);
  offer(1, 0x8000, 100, false);
  EXPECT_GE(kernel.kicks, 3u);
  auto in = kernel.workers[0].next(), more = kernel.workers[0].next(), out = kernel.workers[1].next();
  ASSERT_TRUE(in && more && out);
  EXPECT_EQ(in->writable[0].iov_base, host(0));
  EXPECT_EQ(in->writable[0].iov_len, 2048u);
  EXPECT_EQ(out->readable[0].iov_base, host(0x8000));
  EXPECT_FALSE(queues[0]->take() || queues[1]->take());
  // A frame in two buffers, which the driver sees together; and what was sent.
  storeLe<std::uint16_t>(static_cast<std::uint8_t*>(in->writable[0].iov_base) + 10, 2);
  kernel.workers[0].done(in->id, 2048);
  kernel.workers[0].done(more->id, 500);
  kernel.workers[1].done(out->id, 0);
  int before = transport.interrupts;
  serve();
  EXPECT_EQ(transport.interrupts, before + 2);
  auto first = queues[0]->take(), second = queues[0]->take();
  ASSERT_TRUE(first && second && queues[1]->take());
  EXPECT_EQ(first->written, 2048u);
  EXPECT_EQ(second->written, 500u);
  EXPECT_EQ(device.framesReceived(0), 1u);
  EXPECT_EQ(device.framesSent(0), 1u);
}

TEST_P(NetByVhost, AllPairsSendThroughTheOneThereIs) {
  offer(3, 0x8000, 60, false);
  offer(2, 0, 2048, true);
  auto out = kernel.workers[1].next();
  ASSERT_TRUE(out);
  EXPECT_FALSE(kernel.workers[0].next()) << "nothing arrives on the second pair";
  kernel.workers[1].done(out->id, 0);
  serve();
  EXPECT_TRUE(queues[3]->take());
  EXPECT_EQ(device.framesSent(1), 1u);
}

TEST_P(NetByVhost, WhatTheKernelWouldGiveUpOnComesBackAtOnce) {
  offer(1, 0x8000, 12, false);     // a header without a frame
  offer(1, 0x8000, 90000, false);  // longer than any frame
  offer(1, 0x8000, 50, true);      // to be read, and cannot
  offer(0, 0, 12, true);           // no room for a frame
  offer(0, 0, 2048, false);        // to be written, and must not
  EXPECT_FALSE(kernel.workers[0].next() || kernel.workers[1].next());
  for (int n = 0; n < 3; ++n) EXPECT_TRUE(queues[1]->take());
  for (int n = 0; n < 2; ++n) EXPECT_TRUE(queues[0]->take());
  offer(1, 0x8000, 60, false);
  EXPECT_TRUE(kernel.workers[1].next());
}

TEST_P(NetByVhost, StopsForASaveAndGoesOn) {
  for (std::uint64_t n = 0; n < 4; ++n) offer(0, 0x800 * n, 2048, true);
  auto one = kernel.workers[0].next();
  ASSERT_TRUE(one && kernel.workers[0].next());  // of which the second is not served
  kernel.workers[0].done(one->id, 77);
  state::Archive saved;
  onLoop([&] {
    device.quiesce();
    EXPECT_FALSE(kernel.running);
    EXPECT_EQ(queues[0]->take()->written, 77u) << "what was served before is the driver's";
    device.transfer(saved);
  });
  EXPECT_TRUE(saved.ok());
  onLoop([] {});
  EXPECT_TRUE(kernel.running);
  EXPECT_EQ(kernel.starts, 2u);
  for (std::uint64_t n = 1; n < 4; ++n) {
    auto again = kernel.workers[0].next();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->writable[0].iov_base, host(0x800 * n)) << "in the order in which the driver gave them";
    kernel.workers[0].done(again->id, 100);
  }
  serve();
  for (int n = 1; n < 4; ++n) EXPECT_TRUE(queues[0]->take());
}

TEST_P(NetByVhost, AResetTakesAllBuffersBack) {
  offer(0, 0, 2048, true);
  offer(1, 0x8000, 60, false);
  auto in = kernel.workers[0].next();
  device.reset();
  EXPECT_FALSE(kernel.running);
  kernel.workers[0].restart();
  EXPECT_FALSE(kernel.workers[0].next());
  onLoop([] {});
  EXPECT_EQ(kernel.starts, 1u) << "not before the driver is there again";
}

TEST_P(NetByVhost, TheDriverChoosesAddressesAndPairs) {
  auto command = [&](const std::vector<std::uint8_t>& bytes) {
    ASSERT_TRUE(memory->write(Gpa{0x90000}, std::as_bytes(std::span(bytes))));
    queues[4]->add({{0x90000, static_cast<std::uint32_t>(bytes.size()), false}, {0x91000, 1, true}});
    notify(4);
    EXPECT_TRUE(queues[4]->take());
  };
  EXPECT_TRUE(kernel.filter.empty());
  EXPECT_EQ(kernel.inUse, 1u);
  command({4, 0, 2, 0});
  EXPECT_EQ(kernel.inUse, 2u);
  command({0, 0, 0});                                               // not promiscuous
  command({1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1});  // one group
  ASSERT_EQ(kernel.filter.size(), 3u);
  EXPECT_EQ(kernel.filter[0], (MacAddress{0x52, 0x54, 0, 0, 0, 1}));
  EXPECT_EQ(kernel.filter[2], (MacAddress{0x33, 0x33, 0, 0, 0, 1}));
  EXPECT_FALSE(kernel.groups);
  command({0, 1, 1});
  EXPECT_TRUE(kernel.groups);
}

}  // namespace
}  // namespace lodge::virtio
