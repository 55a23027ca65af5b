// SPDX-License-Identifier: Apache-2.0
// Notifications that are events.
#include "virtio/queue_doorbells.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "device/fakes.h"
#include "virtio/console.h"
#include "virtio/driver_kit.h"
#include "virtio/pci_transport.h"

namespace lodge::virtio {
namespace {

using testing::DriverQueue;

struct Watcher : DoorbellWatcher {
  bool watch(std::uint64_t address, int event) override {
    if (can) watched[address] = event;
    return can;
  }
  void unwatch(std::uint64_t address, int event) override {
    EXPECT_EQ(watched[address], event);
    watched.erase(address);
  }
  bool can = true;
  std::map<std::uint64_t, int> watched;
};

class DoorbellTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = std::make_unique<ConsoleDevice>(*memory_, [this](const char* data, std::size_t length) {
      out_.append(data, length);
      length_ = out_.size();
      if (onOut_) onOut_();
    });
    function_ = std::make_unique<PciTransport>(std::move(made), "console");
    function_->useDoorbells(doorbells_, *loop_);
    ASSERT_TRUE(host_->plug(1, *function_));
    bar_ = function_->readConfig(0x10, 4) & ~15u;
    doorbells_.setWatcher(&watcher_);
  }
  void write(std::uint64_t at, unsigned size, std::uint64_t value) { bus_.write(bar_ + at, size, value); }
  void drive() {
    write(0x14, 1, 1 | 2);
    write(0x08, 4, 1);
    write(0x0c, 4, 1);
    write(0x14, 1, 1 | 2 | 8);
    for (std::uint16_t q : {0, 1})
      queues_[q].install(q, [this](std::uint64_t at, unsigned size, std::uint64_t value) { write(at, size, value); });
    EXPECT_TRUE(watcher_.watched.empty()) << "a driver that is not ready";
    write(0x14, 1, 1 | 2 | 4 | 8);
  }
  void serve() {
    loop_->post([this] { loop_->post([this] { loop_->stop(); }); });
    EXPECT_TRUE(loop_->run());
  }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  DriverQueue queues_[2] = {{*memory_, 0x1000, false, false}, {*memory_, 0x3000, false, false}};
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  IoBus ports_{"ports"}, bus_{"memory"};
  FakeMsiSink msi_;
  FakeLine line_;
  Watcher watcher_;
  Doorbells doorbells_;
  std::unique_ptr<PciHost> host_ = std::move(*PciHost::create({ports_,
                                                               bus_,
                                                               msi_,
                                                               {&line_, &line_, &line_, &line_},
                                                               0xb000'0000,
                                                               0xc000'0000,
                                                               0x1000'0000,
                                                               1ull << 40,
                                                               1 << 30}));
  std::string out_;
  std::atomic<std::size_t> length_{0};  ///< out_'s
  std::function<void()> onOut_;
  std::unique_ptr<PciTransport> function_;
  std::uint64_t bar_ = 0;
};

TEST_F(DoorbellTest, AnEventIsANotification) {
  drive();
  ASSERT_EQ(watcher_.watched.size(), 2u);
  ASSERT_TRUE(watcher_.watched.contains(bar_ + 0x3004));
  queues_[1].put<char>(0x8000, 'x');
  queues_[1].add({{0x8000, 1, false}});
  EXPECT_EQ(::eventfd_write(watcher_.watched[bar_ + 0x3004], 1), 0);
  serve();
  EXPECT_EQ(out_, "x");
  EXPECT_EQ(doorbells_.rings(), 1u);
  // A store of another size is a device access still.
  queues_[1].add({{0x8000, 1, false}});
  write(0x3004, 4, 1);
  EXPECT_EQ(out_, "xx");
}

TEST_F(DoorbellTest, TheyFollowTheBarAndTheDriver) {
  drive();
  std::uint64_t moved = 0xc800'0000;
  function_->writeConfig(0x10, 4, static_cast<std::uint32_t>(moved));
  EXPECT_TRUE(watcher_.watched.contains(moved + 0x3000));
  EXPECT_EQ(watcher_.watched.size(), 2u);
  function_->writeConfig(0x04, 2, 4);
  EXPECT_TRUE(watcher_.watched.empty()) << "memory decoding is off";
  function_->writeConfig(0x04, 2, 6);
  EXPECT_EQ(watcher_.watched.size(), 2u);
  bar_ = moved;
  write(0x16, 2, 0);
  write(0x3a, 2, 1);
  EXPECT_EQ(watcher_.watched.size(), 1u) << "a queue that was reset";
  int event = watcher_.watched.begin()->second;
  write(0x14, 1, 0);
  EXPECT_TRUE(watcher_.watched.empty());
  // One that was on its way finds no driver.
  EXPECT_EQ(::eventfd_write(event, 1), 0);
  serve();
  EXPECT_EQ(out_, "");
}

TEST_F(DoorbellTest, TheyFollowTheEngine) {
  drive();
  Watcher other, none;
  none.can = false;
  doorbells_.setWatcher(&none);
  EXPECT_TRUE(watcher_.watched.empty());
  doorbells_.setWatcher(&other);
  EXPECT_EQ(other.watched.size(), 2u);
  doorbells_.setWatcher(nullptr);
  EXPECT_TRUE(other.watched.empty());
  doorbells_.setWatcher(&other);
  function_->reset();
  EXPECT_TRUE(other.watched.empty());
}

TEST_F(DoorbellTest, ADriverThatEndsWaitsForWhatHasBegun) {
  std::atomic<int> stage{0};
  QueueDoorbells bells(doorbells_, *loop_, 1, 4, [&](unsigned) {
    stage = 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stage = 2;
  });
  bells.place(0x1000);
  bells.setLive(0, true);
  EXPECT_EQ(::eventfd_write(watcher_.watched[0x1000], 1), 0);
  std::thread driver([&] {
    while (stage == 0) std::this_thread::yield();
    bells.setLive(0, false);
    EXPECT_EQ(stage, 2);
  });
  serve();
  driver.join();
}

TEST_F(DoorbellTest, ALongQueueLetsOthersGoFirst) {
  int rings = 0;
  std::string order;
  QueueDoorbells* self = nullptr;
  QueueDoorbells bells(doorbells_, *loop_, 1, 4, [&](unsigned queue) {
    order += 'r';
    if (++rings == 1) {
      loop_->post([&] { order += 'p'; });
      EXPECT_TRUE(self->ringAgain(queue));
    }
  });
  self = &bells;
  bells.place(0x1000);
  bells.setLive(0, true);
  EXPECT_EQ(::eventfd_write(watcher_.watched[0x1000], 1), 0);
  serve();
  serve();
  EXPECT_EQ(rings, 2);
  EXPECT_NE(order.find('p'), std::string::npos);
  EXPECT_TRUE(bells.ringAgain(0)) << "on a thread of the driver's, too";
  bells.setLive(0, false);
  EXPECT_FALSE(bells.ringAgain(0)) << "nobody uses it";
}

TEST_F(DoorbellTest, ADriverThatNeverEndsHoldsUpNobody) {
  drive();
  constexpr std::size_t kAll = 1000, kAtOnce = 64;
  queues_[1].put<char>(0x8000, 'x');
  auto add = [&] { queues_[1].add({{0x8000, 1, false}}); };
  onOut_ = [&] {
    queues_[1].take();
    if (out_.size() < kAll) add();
  };
  add();
  write(0x3004, 4, 1);
  EXPECT_EQ(out_.size(), kAtOnce) << "a vCPU's thread goes back to its guest";
  // The I/O thread goes on, with whatever else it has to do in between.
  std::size_t before = kAtOnce, turns = 0;
  std::function<void()> turn = [&] {
    EXPECT_LE(out_.size(), before + kAtOnce);
    before = out_.size();
    out_.size() < kAll && ++turns < 10 * kAll ? loop_->post(turn) : loop_->stop();
  };
  loop_->post(turn);
  EXPECT_TRUE(loop_->run());
  EXPECT_EQ(out_, std::string(kAll, 'x'));
}

TEST_F(DoorbellTest, OneThreadServesAQueueAtATime) {
  drive();
  std::atomic<int> inside{0};
  constexpr std::size_t kAll = 3000;
  onOut_ = [&] {
    EXPECT_EQ(++inside, 1);
    queues_[1].take();
    if (out_.size() < kAll) queues_[1].add({{0x8000, 1, false}});
    std::this_thread::yield();
    --inside;
  };
  queues_[1].add({{0x8000, 1, false}});
  std::atomic<bool> ended{false};
  std::thread driver([&] {
    while (!ended) write(0x3004, 4, 1);
  });
  std::thread server([&] { EXPECT_TRUE(loop_->run()); });
  while (length_ < kAll) write(0x3004, 4, 1);
  ended = true;
  driver.join();
  loop_->stop();
  server.join();
  EXPECT_EQ(out_.size(), kAll);
}

}  // namespace
}  // namespace lodge::virtio
