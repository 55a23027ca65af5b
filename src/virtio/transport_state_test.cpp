// SPDX-License-Identifier: Apache-2.0
// virtio devices saved in the middle of their work and loaded into fresh ones.
#include <gtest/gtest.h>

#include <string>

#include "device/fakes.h"
#include "virtio/balloon.h"
#include "virtio/console.h"
#include "virtio/driver_kit.h"
#include "virtio/pci_transport.h"

namespace lodge::virtio {
namespace {

using state::Archive;
using testing::DriverQueue;

/// A console with its driver's registers set up, on a bus of its own.
struct Board {
  explicit Board(GuestMemory& memory) : function(make(memory), "console") {
    EXPECT_TRUE(host->plug(1, function));
    bar = function.readConfig(0x10, 4) & ~15u;
  }
  std::unique_ptr<Device> make(GuestMemory& memory) {
    auto made = std::make_unique<ConsoleDevice>(
        memory, [this](const char* data, std::size_t length) { out.append(data, length); });
    console = made.get();
    return made;
  }
  void write(std::uint64_t at, unsigned size, std::uint64_t value) { bus.write(bar + at, size, value); }

  void drive(const DriverQueue (&queues)[2], bool packed) {
    write(0x14, 1, 1 | 2);
    std::uint64_t features = 1ull << 32 | 1 << 28 | 1 << 29 | (packed ? 1ull << 34 : 0);
    for (unsigned half : {0u, 1u}) {
      write(0x08, 4, half);
      write(0x0c, 4, features >> (32 * half) & 0xffffffff);
    }
    write(0x14, 1, 1 | 2 | 8);
    for (std::uint16_t q : {0, 1})
      queues[q].install(q, [this](std::uint64_t at, unsigned size, std::uint64_t value) { write(at, size, value); });
    write(0x14, 1, 1 | 2 | 4 | 8);
  }

  IoBus ports{"ports"}, bus{"memory"};
  FakeMsiSink msi;
  FakeLine line;
  std::unique_ptr<PciHost> host = std::move(*PciHost::create(
      {ports, bus, msi, {&line, &line, &line, &line}, 0xb000'0000, 0xc000'0000, 0x1000'0000, 1ull << 40, 1 << 30}));
  std::string out;
  ConsoleDevice* console = nullptr;
  PciTransport function;
  std::uint64_t bar = 0;
};

struct TransportState : ::testing::TestWithParam<bool> {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue queues[2] = {{*memory, 0x1000, GetParam()}, {*memory, 0x3000, GetParam()}};
};
INSTANTIATE_TEST_SUITE_P(Rings, TransportState, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

TEST_P(TransportState, ADriverNoticesNothing) {
  auto board = std::make_unique<Board>(*memory);
  board->drive(queues, GetParam());
  for (int round = 0; round < 25; ++round) {
    queues[1].put<char>(0x8000, static_cast<char>('a' + round));
    queues[1].add({{0x8000, 1, false}});
    queues[0].add({{0x9000, 1, true}});
    // Half of the time the notification is lost with the old process.
    if (round % 2 == 0) board->write(0x3004, 2, 1);
    board->console->input("x", round % 3 == 0 ? 0 : 1);
    Archive saved;
    board->function.transfer(saved);
    ASSERT_TRUE(saved.finish());
    std::string before = board->out;
    auto next = std::make_unique<Board>(*memory);
    Archive loaded(saved.saved(), 1);
    next->function.transfer(loaded);
    ASSERT_TRUE(loaded.finish()) << loaded.finish().error().message();
    board = std::move(next);
    board->out = before;
    board->function.resume();
    EXPECT_EQ(board->out.back(), 'a' + round);
    EXPECT_TRUE(queues[1].take());
    if (round % 3 == 0) board->console->input("x", 1);
    EXPECT_TRUE(queues[0].take()) << round;
  }
  EXPECT_EQ(board->out, "abcdefghijklmnopqrstuvwxy");
}

TEST_P(TransportState, AQueueOutsideOfMemoryIsRefused) {
  auto board = std::make_unique<Board>(*memory);
  board->drive(queues, GetParam());
  Archive saved;
  board->function.transfer(saved);
  auto small = std::move(*GuestMemory::create(1_MiB));
  auto bytes = saved.saved();
  // The first queue's descriptors: the only place where its address stands.
  for (std::size_t at = 0; at + 8 <= bytes.size(); ++at) {
    std::uint64_t word;
    std::memcpy(&word, &bytes[at], 8);
    if (word == 0x1000) std::memset(&bytes[at], 0x7f, 8);
  }
  Board next(*small);
  Archive loaded(bytes, 1);
  next.function.transfer(loaded);
  EXPECT_EQ(loaded.finish().error().message(), "a queue outside of memory");
  EXPECT_EQ(next.bus.read(next.bar + 0x14, 1), 0u);
}

TEST_P(TransportState, HeldStatisticsAreThereAgain) {
  testing::CountingTransport transport;
  BalloonDevice before(*memory), after(*memory);
  bool accepted = false;
  for (BalloonDevice* balloon : {&before, &after}) {
    balloon->attach(transport);
    balloon->enableQueue(2, queues[0].setup(), accepted);
    balloon->activate(balloon->features());
  }
  queues[0].put<std::uint16_t>(0x8000, 4);
  queues[0].put<std::uint64_t>(0x8002, 4711);
  queues[0].add({{0x8000, 10, false}});
  before.notify(2);
  Archive saved;
  before.transfer(saved);
  Archive loaded(saved.saved(), 1);
  after.transfer(loaded);
  ASSERT_TRUE(loaded.finish());
  EXPECT_EQ(after.statistics()[4], 4711u);
  after.notify(2);
  after.requestStatistics();
  EXPECT_TRUE(queues[0].take());
}

}  // namespace
}  // namespace lodge::virtio
