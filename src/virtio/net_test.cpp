// SPDX-License-Identifier: Apache-2.0
#include "virtio/net.h"

#include <gtest/gtest.h>

#include <functional>
#include <future>

#include "base/bytes.h"
#include "virtio/net_kit.h"

namespace lodge::virtio {
namespace {

constexpr std::uint64_t kMtu = 1 << 3, kMultiQueue = 1 << 22;

/// A network that remembers what was sent to it.
class Wire : public NetBackend {
 public:
  void setReceiver(Receiver receiver) override { toGuest = std::move(receiver); }
  void receiverReady() override { ++ready; }
  void send(std::span<const std::uint8_t> frame, const FrameOffload&) override {
    sent.emplace_back(frame.begin(), frame.end());
    if (!answer.empty()) toGuest(answer, FrameOffload{});
    if (onSend) onSend();
  }
  bool supportsOffload() const override { return true; }
  unsigned mtu() const override { return 9000; }
  Receiver toGuest;
  std::vector<std::vector<std::uint8_t>> sent;
  std::vector<std::uint8_t> answer;  ///< to each frame, at once; empty: none
  std::function<void()> onSend;
  int ready = 0;
};

struct NetTest : testing::NetFixture {
  static constexpr std::uint64_t kHeader = 12;

  Wire* wire = new Wire;
  NetDevice device{*memory, *loop, std::unique_ptr<NetBackend>(wire), kMac, kPairs};
  NetDevice& card() override { return device; }

  void write(std::uint64_t at, const std::vector<std::uint8_t>& bytes) {
    ASSERT_TRUE(memory->write(Gpa{at}, std::as_bytes(std::span(bytes))));
  }
  /// Sends a frame on a pair.
  void send(unsigned pair, const std::vector<std::uint8_t>& frame) {
    std::vector<std::uint8_t> message(kHeader);
    message.insert(message.end(), frame.begin(), frame.end());
    write(kBuffers, message);
    queues[2 * pair + 1]->add({{kBuffers, static_cast<std::uint32_t>(message.size()), false}});
    notify(2 * pair + 1);
    if (takesWhatWasSent) EXPECT_TRUE(queues[2 * pair + 1]->take());
  }
  bool takesWhatWasSent = true;
  /// Answers come to pair 0, which has asked for interrupts of both of its queues.
  void expectAnswers() {
    wire->answer = segment(1, true);
    addBuffers(0, 4);
    for (unsigned queue : {0u, 1u}) queues[queue]->askForInterrupt();
    takesWhatWasSent = false;
  }
  /// A control command; whether the device took it.
  bool command(const std::vector<std::uint8_t>& bytes) {
    write(0x90000, bytes);
    (void)memory->fill(Gpa{0x91000}, std::byte{0x55}, 1);
    queues[4]->add({{0x90000, static_cast<std::uint32_t>(bytes.size()), false}, {0x91000, 1, true}});
    notify(4);
    EXPECT_TRUE(queues[4]->take());
    return queues[4]->get<std::uint8_t>(0x91000) == 0;
  }
  bool setPairs(std::uint16_t pairs) {
    return command({4, 0, static_cast<std::uint8_t>(pairs), static_cast<std::uint8_t>(pairs >> 8)});
  }
  /// A TCP segment between two hosts; `back`: the other way.
  static std::vector<std::uint8_t> segment(std::uint16_t port, bool back, bool v6 = false) {
    std::vector<std::uint8_t> f(14 + (v6 ? 40 : 20) + 20);
    f[12] = v6 ? 0x86 : 0x08;
    f[13] = v6 ? 0xdd : 0x00;
    f[14] = v6 ? 0x60 : 0x45;
    f[v6 ? 20 : 23] = 6;
    std::size_t addresses = v6 ? 22 : 26, length = v6 ? 16 : 4, ports = v6 ? 54 : 34;
    f[addresses + (back ? length : 0)] = 10;
    f[addresses + (back ? 0 : length)] = 99;
    std::size_t mine = ports + (back ? 2 : 0), theirs = ports + (back ? 0 : 2);
    f[mine] = static_cast<std::uint8_t>(port >> 8);
    f[mine + 1] = static_cast<std::uint8_t>(port);
    f[theirs + 1] = 80;
    return f;
  }
  bool receive(const std::vector<std::uint8_t>& frame) {
    bool taken = false;
    onLoop([&] { taken = wire->toGuest(frame, FrameOffload{}); });
    return taken;
  }
  void addBuffers(unsigned pair, unsigned count, std::uint32_t bytes = 2048, unsigned first = 0) {
    for (unsigned n = first; n < first + count; ++n)
      queues[2 * pair]->add({{kBuffers + 0x10000 + 0x800 * n, bytes, true}});
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, NetTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

TEST_P(NetTest, TellsTheNetworksMtuAndItsPairs) {
  EXPECT_NE(device.features() & kMtu, 0u);
  EXPECT_NE(device.features() & kMultiQueue, 0u);
  EXPECT_EQ(device.readConfig(8, 2), kPairs);
  EXPECT_EQ(device.readConfig(10, 2), 9000u);
}

TEST_P(NetTest, OnePairUntilTheDriverAsksForMore) {
  addBuffers(0, 8);
  for (std::uint16_t port = 1; port <= 8; ++port) EXPECT_TRUE(receive(segment(port, true)));
  EXPECT_EQ(device.framesReceived(0), 8u);
  EXPECT_EQ(device.framesReceived(1), 0u);
  EXPECT_FALSE(setPairs(0));
  EXPECT_FALSE(setPairs(3));
  EXPECT_FALSE(command({4, 0, 2}));
  EXPECT_TRUE(setPairs(2));
}

TEST_P(NetTest, AFlowArrivesWhereItIsSent) {
  ASSERT_TRUE(setPairs(2));
  for (bool v6 : {false, true}) {
    for (std::uint16_t port = 1000; port < 1004; ++port) {
      for (unsigned pair : {port % 2u, 1 - port % 2u}) {  // the driver moves the flow, and the device follows
        send(pair, segment(port, false, v6));
        std::uint64_t before = device.framesReceived(pair);
        addBuffers(pair, 1);
        ASSERT_TRUE(receive(segment(port, true, v6)));
        EXPECT_EQ(device.framesReceived(pair), before + 1);
        EXPECT_TRUE(queues[2 * pair]->take());
      }
    }
  }
  EXPECT_EQ(wire->sent.size(), 16u);
  // With one pair all come there again.
  ASSERT_TRUE(setPairs(1));
  std::uint64_t before = device.framesReceived(0);
  addBuffers(0, 1);
  ASSERT_TRUE(receive(segment(1001, true)));
  EXPECT_EQ(device.framesReceived(0), before + 1);
}

TEST_P(NetTest, NewFlowsAreSpread) {
  ASSERT_TRUE(setPairs(2));
  for (unsigned pair : {0u, 1u}) addBuffers(pair, 1);
  for (std::uint16_t port = 2000; port < 2100; ++port) {
    ASSERT_TRUE(receive(segment(port, true)));
    for (unsigned pair : {0u, 1u}) {
      if (queues[2 * pair]->take()) addBuffers(pair, 1);
    }
  }
  EXPECT_GT(device.framesReceived(0), 20u);
  EXPECT_GT(device.framesReceived(1), 20u);
}

TEST_P(NetTest, BuffersThatDoNotSufficeWaitOnTheirPair) {
  ASSERT_TRUE(setPairs(2));
  send(1, segment(7, false));
  std::vector<std::uint8_t> large = segment(7, true);
  large.resize(3000);
  addBuffers(1, 1);
  EXPECT_FALSE(receive(large));
  EXPECT_FALSE(queues[2]->take()) << "the driver gets no empty buffer";
  queues[2]->add({{kBuffers + 0x18000, 2048, true}});
  EXPECT_TRUE(receive(large));
  auto first = queues[2]->take(), second = queues[2]->take();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->written + second->written, 3000 + kHeader);
  EXPECT_EQ(queues[2]->get<std::uint16_t>(kBuffers + 0x10000 + 10), 2u) << "num_buffers";
}

TEST_P(NetTest, AFrameThatTheWholeRingHasNoRoomForIsLost) {
  addBuffers(0, 4, 100);
  std::vector<std::uint8_t> large = segment(7, true);
  large.resize(1000);
  EXPECT_FALSE(receive(large)) << "the driver may give more";
  addBuffers(0, 4, 100, 4);
  EXPECT_TRUE(receive(large)) << "it has given all";
  EXPECT_EQ(device.framesLost(0), 1u);
  EXPECT_FALSE(queues[0]->take()) << "the buffers wait for a frame that fits";
  large.resize(500);
  EXPECT_TRUE(receive(large));
  EXPECT_EQ(device.framesReceived(0), 1u);
  for (int n = 0; n < 6; ++n) EXPECT_TRUE(queues[0]->take()) << n;
  EXPECT_FALSE(queues[0]->take()) << "the others wait on";
  EXPECT_EQ(queues[0]->get<std::uint16_t>(kBuffers + 0x10000 + 10), 6u) << "num_buffers";
  EXPECT_TRUE(receive(segment(7, true)));
  EXPECT_EQ(device.framesReceived(0), 2u);
}

TEST_P(NetTest, WithoutMergeableBuffersAFrameThatDoesNotFitIsLost) {
  constexpr std::uint64_t kMergeable = 1 << 15;
  onLoop([&] { device.activate(device.features() & ~kMergeable); });
  std::vector<std::uint8_t> large = segment(7, true);
  large.resize(2000);
  EXPECT_FALSE(receive(large)) << "no buffer at all: it waits";
  addBuffers(0, 2, 1526);
  EXPECT_TRUE(receive(large)) << "the network need not keep it";
  EXPECT_EQ(device.framesLost(0), 1u);
  EXPECT_TRUE(receive(segment(7, true)));
  auto first = queues[0]->take(), second = queues[0]->take();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->written, 0u) << "the driver has the small buffer back, empty";
  EXPECT_EQ(second->written, kHeader + segment(7, true).size());
}

TEST_P(NetTest, ADriverThatNeverEndsToSendHoldsUpNobody) {
  constexpr std::size_t kAll = 1000, kAtOnce = 64;
  write(kBuffers, std::vector<std::uint8_t>(kHeader + 60));
  auto add = [&] { queues[1]->add({{kBuffers, kHeader + 60, false}}); };
  wire->onSend = [&] {
    queues[1]->take();
    if (wire->sent.size() < kAll) add();
  };
  add();
  std::promise<void> done;
  std::size_t before = 0, turns = 0;
  std::function<void()> turn = [&] {
    EXPECT_LE(wire->sent.size(), before + kAtOnce);
    before = wire->sent.size();
    wire->sent.size() < kAll && ++turns < 100 * kAll ? loop->post(turn) : done.set_value();
  };
  device.notify(1);
  loop->post(turn);
  done.get_future().wait();
  EXPECT_EQ(wire->sent.size(), kAll);
}

TEST_P(NetTest, AQueueThatIsResetForgetsItsBuffers) {
  addBuffers(0, 1, 16);
  EXPECT_FALSE(receive(segment(1, true))) << "16 bytes are not enough for it";
  card().disableQueue(0);
  queues[0] = std::make_unique<testing::DriverQueue>(*memory, 0x8000, GetParam());
  enable(0);
  queues[0]->add({{kBuffers + 0x40000, 2048, true}});
  EXPECT_TRUE(receive(segment(1, true)));
  auto used = queues[0]->take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, kHeader + segment(1, true).size());
  EXPECT_EQ(queues[0]->get<std::uint16_t>(kBuffers + 0x40000 + 10), 1u) << "num_buffers";
}

TEST_P(NetTest, ADriverWithoutRoomForMoreIsToldAtOnce) {
  expectAnswers();
  int signals = 0;
  transport.onSignal = [&](unsigned queue) { signals += queue == 1; };
  std::vector<std::uint8_t> frame = segment(1, false);
  write(kBuffers, std::vector<std::uint8_t>(kHeader));
  write(kBuffers + 0x1000, frame);
  // Two of the ring's eight.
  queues[1]->add({{kBuffers, kHeader, false}, {kBuffers + 0x1000, static_cast<std::uint32_t>(frame.size()), false}});
  notify(1);
  EXPECT_EQ(signals, 1);
}

TEST_P(NetTest, AnAnswerAtOnceComesBehindWhatWasSentWithOneInterrupt) {
  expectAnswers();
  std::vector<unsigned> signals;
  transport.onSignal = [&](unsigned queue) {
    signals.push_back(queue);
    if (queue != 0) return;
    EXPECT_TRUE(queues[1]->take());
    queues[1]->askForInterrupt();
    EXPECT_TRUE(queues[0]->take());
    queues[0]->askForInterrupt();
  };
  for (int n = 0; n < 3; ++n) {
    send(0, segment(1, false));
    onLoop([&] { device.quiesce(); });
    EXPECT_EQ(signals, std::vector<unsigned>(static_cast<unsigned>(n) + 1, 0u));
  }
}

TEST_P(NetTest, ADriverThatDoesNotLookAtWhatWasSentIsInterruptedLater) {
  expectAnswers();
  std::promise<void> later;
  std::atomic<int> signals{0};
  transport.onSignal = [&](unsigned queue) {
    if (queue == 1 && ++signals == 1) later.set_value();
  };
  send(0, segment(1, false));
  EXPECT_EQ(later.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_TRUE(queues[1]->take());
  onLoop([&] { device.quiesce(); });
  EXPECT_EQ(signals, 1);
}

TEST_P(NetTest, WithoutAnAnswerTheInterruptComesAtOnce) {
  queues[1]->askForInterrupt();
  int signals = 0;
  transport.onSignal = [&](unsigned queue) { signals += queue == 1; };
  send(0, segment(1, false));
  EXPECT_EQ(signals, 1);
}

}  // namespace
}  // namespace lodge::virtio
