// SPDX-License-Identifier: Apache-2.0
#include "virtio/scsi.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "storage/scsi_cdrom.h"
#include "storage/scsi_disk.h"
#include "storage/test_disk.h"
#include "virtio/driver_kit.h"

namespace lodge::virtio {
namespace {

using testing::CountingTransport;
using testing::DriverQueue;

constexpr std::uint64_t kRequest = 0x8000, kResponse = 0x9000, kData = 0xa000;

class VirtioScsi : public ::testing::Test {
 protected:
  VirtioScsi() {
    disk_->content[512] = 0x77;
    device_.add(std::make_unique<ScsiDisk>(std::make_shared<TestDisk>(64 * 512), "first"));
    device_.add(std::make_unique<ScsiDisk>(disk_, "second"));
    device_.attach(transport_);
    for (unsigned queue : {0u, 2u}) {
      bool accepted = false;
      device_.enableQueue(queue, (queue == 0 ? control_ : requests_).setup(), accepted);
      EXPECT_TRUE(accepted);
    }
    device_.activate(0);
  }
  /// Returns the response's code; the SCSI status is at kResponse + 10.
  int command(std::vector<std::uint8_t> cdb, unsigned target, unsigned lun, std::uint32_t bytes) {
    std::uint8_t header[51] = {1, static_cast<std::uint8_t>(target), 0x40, static_cast<std::uint8_t>(lun)};
    std::copy(cdb.begin(), cdb.end(), header + 19);
    EXPECT_TRUE(memory_->writeObject(Gpa{kRequest}, header));
    (void)memory_->fill(Gpa{kResponse}, std::byte{0xee}, 108);
    requests_.add({{kRequest, 51, false}, {kResponse, 108, true}, {kData, bytes, true}});
    device_.notify(2);
    EXPECT_TRUE(requests_.take());
    return requests_.get<std::uint8_t>(kResponse + 11);
  }

  /// A read that its disk does not complete, and a reset of the unit, which waits for it.
  void resetUnitDuringRead() {
    disk_->hold = true;
    std::uint8_t header[51] = {1, 0, 0x40, 1};
    header[19] = 0x28;
    header[27] = 1;
    ASSERT_TRUE(memory_->writeObject(Gpa{kRequest}, header));
    requests_.add({{kRequest, 51, false}, {kResponse, 108, true}, {kData, 512, true}});
    device_.notify(2);
    std::uint8_t reset[24] = {0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0x40, 1};
    ASSERT_TRUE(memory_->writeObject(Gpa{0xc000}, reset));
    control_.add({{0xc000, 24, false}, {0xd000, 1, true}});
    device_.notify(0);
  }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(64 * 512);
  DriverQueue control_{*memory_, 0x1000, false}, requests_{*memory_, 0x2000, false};
  CountingTransport transport_;
  ScsiDevice device_{*memory_, 1};
};

TEST_F(VirtioScsi, UnitsHaveTheirAddresses) {
  EXPECT_EQ(command({0x28, 0, 0, 0, 0, 1, 0, 0, 1}, 0, 1, 512), 0);
  EXPECT_EQ(requests_.get<std::uint8_t>(kData), 0x77);
  EXPECT_EQ(requests_.get<std::uint32_t>(kResponse + 4), 0u) << "nothing is left over";
  EXPECT_EQ(command({0}, 1, 0, 512), 3) << "no such target";
  EXPECT_EQ(command({0x12, 0, 0, 0, 36}, 0, 9, 512), 0);
  EXPECT_EQ(requests_.get<std::uint8_t>(kData), 0x7f) << "no such unit";
  EXPECT_EQ(command({0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0}, 0, 0, 512), 0);
  EXPECT_EQ(requests_.get<std::uint8_t>(kData + 3), 16);
  EXPECT_EQ(requests_.get<std::uint8_t>(kData + 17), 1);
}

TEST_F(VirtioScsi, FailuresBringSense) {
  EXPECT_EQ(command({0x28, 0, 0, 0, 0, 64, 0, 0, 1}, 0, 1, 512), 0);
  EXPECT_EQ(requests_.get<std::uint8_t>(kResponse + 10), scsi::kCheckCondition);
  EXPECT_EQ(requests_.get<std::uint32_t>(kResponse), 18u);
  EXPECT_EQ(requests_.get<std::uint8_t>(kResponse + 12 + 2), scsi::kIllegalRequest);
  EXPECT_EQ(requests_.get<std::uint8_t>(kResponse + 12 + 12), 0x21);
  EXPECT_EQ(command({0x28, 0, 0, 0, 0, 1, 0, 0, 4}, 0, 1, 512), 1) << "overrun";
}

TEST_F(VirtioScsi, AResetOfAUnitWaitsForItsTasks) {
  ASSERT_NO_FATAL_FAILURE(resetUnitDuringRead());
  EXPECT_FALSE(control_.take());
  disk_->completeHeld();
  EXPECT_TRUE(requests_.take());
  EXPECT_TRUE(control_.take());
  EXPECT_EQ(control_.get<std::uint8_t>(0xd000), 0);
}

TEST_F(VirtioScsi, QueuesThatAreResetForgetWhatWasAsked) {
  ASSERT_NO_FATAL_FAILURE(resetUnitDuringRead());
  // The control queue's request only waits; the other's is the disk's.
  device_.disableQueue(0);
  DriverQueue control(*memory_, 0x3000, false);
  bool accepted = false;
  device_.enableQueue(0, control.setup(), accepted);
  ASSERT_TRUE(accepted);
  std::atomic<bool> ended{false};
  std::thread resets([&] {
    device_.disableQueue(2);
    ended = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(ended);
  disk_->completeHeld();
  resets.join();
  EXPECT_TRUE(device_.isQuiet());
  EXPECT_FALSE(control.take()) << "an answer to the ring that was";
  EXPECT_FALSE(requests_.take());
}

TEST_F(VirtioScsi, UnitsAreSavedWithTheirMedia) {
  device_.add(std::make_unique<ScsiCdrom>(std::make_shared<TestDisk>(64 * 2048)));
  EXPECT_EQ(command({0x1e, 0, 0, 0, 1}, 0, 2, 512), 0);  // the medium is locked
  device_.quiesce();
  EXPECT_EQ(disk_->flushes, 1);
  state::Archive saved(2);
  device_.transfer(saved);
  EXPECT_EQ(command({0x1e, 0, 0, 0, 0}, 0, 2, 512), 0);
  state::Archive loaded(saved.saved(), 2);
  device_.transfer(loaded);
  ASSERT_TRUE(loaded.finish()) << loaded.finish().error().message();
  EXPECT_EQ(command({0x1b, 0, 0, 0, 2}, 0, 2, 512), 0);
  EXPECT_EQ(requests_.get<std::uint8_t>(kResponse + 10), 2) << "it is locked again, and is not ejected";
  ScsiDevice other(*memory_, 1);
  state::Archive fewer(saved.saved(), 2);
  other.transfer(fewer);
  EXPECT_FALSE(fewer.finish());
}

}  // namespace
}  // namespace lodge::virtio
