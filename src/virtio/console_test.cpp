// SPDX-License-Identifier: Apache-2.0
#include "virtio/console.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "virtio/driver_kit.h"

namespace lodge::virtio {
namespace {

using testing::CountingTransport;
using testing::DriverQueue;

struct ConsoleTest : ::testing::TestWithParam<bool> {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue receive{*memory, 0x1000, GetParam()}, transmit{*memory, 0x3000, GetParam()};
  CountingTransport transport;
  std::string out;
  ConsoleDevice device{*memory, [this](const char* data, std::size_t length) { out.append(data, length); }};

  void SetUp() override {
    device.attach(transport);
    bool accepted = false;
    device.enableQueue(0, receive.setup(), accepted);
    ASSERT_TRUE(accepted);
    device.enableQueue(1, transmit.setup(), accepted);
    ASSERT_TRUE(accepted);
    device.activate(device.features());
  }
  std::string text(std::uint64_t address, std::uint32_t length) {
    std::string result(length, '\0');
    EXPECT_TRUE(memory->read(Gpa{address}, std::as_writable_bytes(std::span(result))));
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, ConsoleTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

TEST_P(ConsoleTest, OutputIsHandedOn) {
  for (int i = 0; i < 5; ++i) transmit.put<char>(0x8000 + i, "hello"[i]);
  transmit.add({{0x8000, 2, false}, {0x8002, 3, false}});
  device.notify(1);
  EXPECT_EQ(out, "hello");
  auto used = transmit.take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 0u);
}

TEST_P(ConsoleTest, InputWaitsForBuffers) {
  EXPECT_EQ(device.input("abcdef", 6), 6u);
  EXPECT_FALSE(receive.take());
  receive.add({{0x9000, 4, true}});
  device.notify(0);
  auto used = receive.take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 4u);
  EXPECT_EQ(text(0x9000, 4), "abcd");
  receive.add({{0x9100, 4, true}});
  device.notify(0);
  used = receive.take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 2u);
  EXPECT_EQ(text(0x9100, 2), "ef");
}

TEST_P(ConsoleTest, TellsOfRoomOnceThereIsSome) {
  int rooms = 0;
  device.onRoom([&] { ++rooms; });
  std::string much(ConsoleDevice::kBacklogBytes + 10, 'x');
  EXPECT_EQ(device.input(much.data(), much.size()), ConsoleDevice::kBacklogBytes);
  EXPECT_EQ(device.input("y", 1), 0u);
  receive.add({{0x10000, 0x4000, true}});
  device.notify(0);
  EXPECT_EQ(rooms, 0);
  receive.add({{0x20000, 0x4000, true}});
  device.notify(0);
  EXPECT_EQ(rooms, 1);
  device.reset();
  EXPECT_EQ(rooms, 1);
}

TEST_P(ConsoleTest, OutputTellsTheSizeNowAndThenUntilTheFirstKey) {
  auto write = [&] {
    transmit.add({{0x8000, 2, false}});
    device.notify(1);
  };
  device.input("a", 1);
  EXPECT_EQ(transport.configChanges, 0);
  write();
  EXPECT_EQ(transport.configChanges, 1);
  std::this_thread::sleep_for(ConsoleDevice::kTellInterval);
  write();
  EXPECT_EQ(transport.configChanges, 2);
  device.input("b", 1);
  device.input("c", 1);
  EXPECT_EQ(transport.configChanges, 3);
  std::this_thread::sleep_for(ConsoleDevice::kTellInterval);
  write();
  EXPECT_EQ(transport.configChanges, 3);
}

TEST_P(ConsoleTest, SizeIsInTheConfiguration) {
  EXPECT_EQ(device.readConfig(0, 2), 80u);
  device.resize(132, 43);
  EXPECT_EQ(transport.configChanges, 1);
  EXPECT_EQ(device.readConfig(0, 2), 132u);
  EXPECT_EQ(device.readConfig(2, 2), 43u);
}

}  // namespace
}  // namespace lodge::virtio
