// SPDX-License-Identifier: Apache-2.0
// For tests: a network card whose driver is the test, with an I/O thread.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "virtio/driver_kit.h"
#include "virtio/net.h"

namespace lodge::virtio::testing {

/// A card with two pairs of queues, packed or split by the test's parameter. The test's own fixture has the card and
/// what it hangs on.
struct NetFixture : ::testing::TestWithParam<bool> {
  static constexpr unsigned kPairs = 2, kQueues = 2 * kPairs + 1;
  static constexpr std::uint64_t kBuffers = 0x20000;  ///< of the guest's memory, for frames
  static constexpr MacAddress kMac = {0x52, 0x54, 0, 0, 0, 1};

  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  std::vector<std::unique_ptr<DriverQueue>> queues;
  CountingTransport transport;
  std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
  std::thread thread;

  virtual NetDevice& card() = 0;

  void SetUp() override {
    card().attach(transport);
    for (unsigned n = 0; n < kQueues; ++n) {
      queues.push_back(std::make_unique<DriverQueue>(*memory, 0x1000 + 0x1000 * n, GetParam()));
      enable(n);
    }
    card().activate(card().features());
    thread = std::thread([this] { EXPECT_TRUE(loop->run()); });
    onLoop([] {});
  }
  void TearDown() override {
    loop->stop();
    thread.join();
  }
  void enable(unsigned n) {
    bool accepted = false;
    card().enableQueue(n, queues[n]->setup(), accepted);
    ASSERT_TRUE(accepted);
  }
  /// Runs something on the I/O thread, after all that was asked of it before.
  void onLoop(const std::function<void()>& function) {
    std::promise<void> done;
    loop->post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }
  void notify(unsigned queue) {
    card().notify(queue);
    onLoop([] {});
  }
};

}  // namespace lodge::virtio::testing
