// SPDX-License-Identifier: Apache-2.0
#include "virtio/block.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "base/bytes.h"
#include "virtio/balloon.h"
#include "virtio/driver_kit.h"
#include "virtio/entropy.h"

namespace lodge::virtio {
namespace {

using testing::Buffer;
using testing::CountingTransport;
using testing::DriverQueue;

// A disk in memory that answers at once, or later when told to hold.
class MemoryDisk : public Disk {
 public:
  explicit MemoryDisk(std::vector<std::uint8_t>& data) : data_(data) {}
  std::uint64_t sizeBytes() const override { return data_.size(); }
  bool readOnly() const override { return false; }
  void read(std::uint64_t offset, std::span<const iovec> to, Completion done) override {
    if (hold) {
      held = [this, offset, to, done] {
        hold = false;
        read(offset, to, done);
      };
      return;
    }
    for (const iovec& v : to) {
      std::memcpy(v.iov_base, data_.data() + offset, v.iov_len);
      offset += v.iov_len;
    }
    done(0);
  }
  void write(std::uint64_t offset, std::span<const iovec> from, Completion done) override {
    for (const iovec& v : from) {
      std::memcpy(data_.data() + offset, v.iov_base, v.iov_len);
      offset += v.iov_len;
    }
    done(0);
  }
  void flush(Completion done) override { done(5); }
  bool hold = false;
  std::function<void()> held;  ///< the read that waits
  void discard(std::uint64_t, std::uint64_t, Completion done) override { done(0); }
  void writeZeroes(std::uint64_t offset, std::uint64_t length, bool, Completion done) override {
    std::fill_n(data_.begin() + static_cast<long>(offset), length, std::uint8_t{0});
    done(0);
  }

 private:
  std::vector<std::uint8_t>& data_;
};

struct BlockTest : ::testing::TestWithParam<bool> {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  std::vector<std::uint8_t> data = std::vector<std::uint8_t>(64 * 512, 0x5a);
  DriverQueue driver{*memory, 0x1000, GetParam()};
  CountingTransport transport;
  MemoryDisk* disk = new MemoryDisk(data);
  BlockDevice device{*memory, std::unique_ptr<Disk>(disk), "serial-1", 1};

  void SetUp() override {
    device.attach(transport);
    bool accepted = false;
    device.enableQueue(0, driver.setup(), accepted);
    ASSERT_TRUE(accepted);
    device.activate(device.features());
  }
  // One request; returns the status byte.
  int request(std::uint32_t type, std::uint64_t sector, std::uint32_t bytes, bool toGuest) {
    driver.put(0x8000, type);
    driver.put(0x8008, sector);
    driver.put<std::uint8_t>(0xf000, 0xee);
    std::vector<Buffer> chain{{0x8000, 16, false}};
    if (bytes != 0) chain.push_back({0x9000, bytes, toGuest});
    chain.push_back({0xf000, 1, true});
    driver.add(chain);
    device.notify(0);
    auto used = driver.take();
    EXPECT_TRUE(used);
    written = used ? used->written : 0;
    return driver.get<std::uint8_t>(0xf000);
  }
  std::uint32_t written = 0;
};
INSTANTIATE_TEST_SUITE_P(Rings, BlockTest, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "packed" : "split"; });

TEST_P(BlockTest, readsAndWritesSectors) {
  (void)memory->fill(Gpa{0x9000}, std::byte{0x77}, 1024);
  EXPECT_EQ(request(1, 3, 1024, false), 0);
  EXPECT_EQ(data[3 * 512], 0x77);
  EXPECT_EQ(data[5 * 512 - 1], 0x77);
  EXPECT_EQ(data[5 * 512], 0x5a);
  EXPECT_EQ(request(0, 4, 1024, true), 0);
  EXPECT_EQ(written, 1025u);
  EXPECT_EQ(driver.get<std::uint8_t>(0x9000), 0x77);
  EXPECT_EQ(driver.get<std::uint8_t>(0x9200), 0x5a);
  EXPECT_GE(transport.interrupts, 1);
}

TEST_P(BlockTest, refusesWhatLiesBeyondTheEnd) {
  EXPECT_EQ(request(0, 64, 512, true), 1);
  EXPECT_EQ(request(0, 63, 1024, true), 1);
  EXPECT_EQ(request(0, ~0ull, 512, true), 1);
  EXPECT_EQ(request(0, 0, 100, true), 1) << "not whole sectors";
  EXPECT_EQ(request(77, 0, 0, true), 2) << "unknown type";
}

TEST_P(BlockTest, zeroesIdentifiesAndReportsErrors) {
  driver.put(0x9000, std::uint64_t{2});
  driver.put(0x9008, std::uint32_t{4});
  driver.put(0x900c, std::uint32_t{1});
  EXPECT_EQ(request(13, 0, 16, false), 0);
  EXPECT_EQ(data[2 * 512], 0);
  EXPECT_EQ(data[6 * 512], 0x5a);
  EXPECT_EQ(request(8, 0, 20, true), 0);
  EXPECT_EQ(std::memcmp(memory->span(Gpa{0x9000}, 20), "serial-1\0", 9), 0);
  EXPECT_EQ(request(4, 0, 0, true), 1) << "the disk's flush fails";
}

TEST_P(BlockTest, aRequestWithoutStatusBreaksTheDevice) {
  driver.add({{0x8000, 16, false}});
  device.notify(0);
  EXPECT_EQ(transport.resetsWanted, 1);
}

TEST_P(BlockTest, aQueueThatIsResetWaitsForItsRequests) {
  disk->hold = true;
  driver.put(0x8000, std::uint32_t{0});
  driver.put(0x8008, std::uint64_t{4});
  driver.put<std::uint8_t>(0x9000, 0xee);
  driver.add({{0x8000, 16, false}, {0x9000, 512, true}, {0xf000, 1, true}});
  device.notify(0);
  EXPECT_FALSE(device.isQuiet());
  std::atomic<bool> ended{false};
  std::thread resets([&] {
    device.disableQueue(0);
    ended = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(ended) << "the disk may write into the driver's buffer still";
  disk->held();
  resets.join();
  EXPECT_EQ(driver.get<std::uint8_t>(0x9000), 0x5a);
  EXPECT_TRUE(device.isQuiet());
  EXPECT_FALSE(driver.take()) << "the ring is the driver's alone";
}

TEST(Entropy, fillsBuffers) {
  auto memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue driver(*memory, 0x1000, false);
  CountingTransport transport;
  EntropyDevice device(*memory);
  device.attach(transport);
  bool accepted = false;
  device.enableQueue(0, driver.setup(), accepted);
  driver.add({{0x8000, 64, true}});
  device.notify(0);
  auto used = driver.take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 64u);
  std::uint64_t any = 0;
  for (unsigned i = 0; i < 64; i += 8) any |= driver.get<std::uint64_t>(0x8000 + i);
  EXPECT_NE(any, 0u);
}

TEST(Balloon, statisticsGoWithTheirQueue) {
  auto memory = std::move(*GuestMemory::create(1_MiB));
  DriverQueue first(*memory, 0x1000, false), second(*memory, 0x2000, false);
  CountingTransport transport;
  BalloonDevice device(*memory);
  device.attach(transport);
  device.activate(device.features());
  constexpr unsigned kStatistics = 2;
  bool accepted = false;
  device.enableQueue(kStatistics, first.setup(), accepted);
  first.add({{0x8000, 10, false}});
  device.notify(kStatistics);
  device.requestStatistics();
  EXPECT_TRUE(first.take()) << "the buffer is asked back for new ones";
  first.add({{0x8000, 10, false}});
  device.notify(kStatistics);
  device.disableQueue(kStatistics);
  device.enableQueue(kStatistics, second.setup(), accepted);
  ASSERT_TRUE(accepted);
  device.requestStatistics();
  EXPECT_FALSE(second.take()) << "a buffer of the ring that was";
  second.add({{0x8000, 10, false}});
  device.notify(kStatistics);
  device.requestStatistics();
  EXPECT_TRUE(second.take());
}

TEST(Balloon, givesPagesBack) {
  auto memory = std::move(*GuestMemory::create(16_MiB));
  (void)memory->fill(Gpa{4_MiB}, std::byte{1}, 4_MiB);
  std::uint64_t before = memory->residentBytes();
  DriverQueue driver(*memory, 0x1000, false);
  CountingTransport transport;
  BalloonDevice device(*memory);
  device.attach(transport);
  bool accepted = false;
  device.enableQueue(0, driver.setup(), accepted);
  device.activate(device.features());
  for (std::uint32_t i = 0; i < 512; ++i) driver.put(0x8000 + 4 * i, 1024 + i);
  driver.add({{0x8000, 2048, false}});
  device.notify(0);
  EXPECT_TRUE(driver.take());
  EXPECT_LE(memory->residentBytes() + 2_MiB, before + 64_KiB);
  driver.put<std::uint8_t>(5_MiB, 0);
  EXPECT_EQ(driver.get<std::uint8_t>(4_MiB), 0);
  device.setTarget(7);
  EXPECT_EQ(device.readConfig(0, 4), 7u);
  EXPECT_EQ(transport.configChanges, 1);
}

}  // namespace
}  // namespace lodge::virtio
