// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/units.h"
#include "storage/scsi_cdrom.h"
#include "storage/scsi_disk.h"
#include "storage/test_disk.h"

namespace lodge {
namespace {

class ScsiTest : public testing::Test {
 protected:
  ScsiTest() {
    for (std::size_t n = 0; n < disk_->content.size(); n += 512) disk_->content[n] = static_cast<std::uint8_t>(n >> 9);
    for (std::size_t n = 0; n < cd_->content.size(); n += 2048) cd_->content[n] = static_cast<std::uint8_t>(n >> 11);
  }
  ScsiResult run(ScsiUnit& unit, std::vector<std::uint8_t> cdb, std::vector<std::uint8_t> out = {}) {
    ScsiCommand command;
    std::copy(cdb.begin(), cdb.end(), command.cdb.begin());
    // Three pieces, so that none is a whole block.
    in_.assign(1 << 17, 0xee);
    iovec from{out.data(), out.size()},
        to[] = {{in_.data(), 100}, {in_.data() + 100, 3}, {in_.data() + 103, in_.size() - 103}};
    if (!out.empty()) command.fromInitiator = {&from, 1};
    command.toInitiator = to;
    std::optional<ScsiResult> result;
    unit.execute(command, [&](const ScsiResult& r) { result = r; });
    EXPECT_TRUE(result);
    return result.value_or(ScsiResult{});
  }
  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(1_MiB), cd_ = std::make_shared<TestDisk>(256_KiB);
  ScsiDisk unit_{disk_, "serial7"};
  ScsiCdrom cdrom_{cd_};
  std::vector<std::uint8_t> in_;
};

TEST_F(ScsiTest, TheDiskTellsWhatItIs) {
  EXPECT_EQ(run(unit_, {0x12, 0, 0, 0, 36}).moved, 36u);
  EXPECT_EQ(in_[0], 0);
  EXPECT_EQ(std::string(in_.begin() + 8, in_.begin() + 13), "LODGE");
  EXPECT_EQ(run(unit_, {0x12, 1, 0x80, 0, 255}).moved, 11u);
  EXPECT_EQ(std::string(in_.begin() + 4, in_.begin() + 11), "serial7");
  EXPECT_EQ(run(unit_, {0x12, 1, 0x77, 0, 255}).senseCode, 0x2400);
  EXPECT_EQ(run(unit_, {0x25}).moved, 8u);
  EXPECT_EQ(in_[2] << 8 | in_[3], 2047);
  EXPECT_EQ(run(unit_, {0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}).moved, 32u);
  EXPECT_EQ(in_[6] << 8 | in_[7], 2047);
  EXPECT_EQ(in_[14] & 0x80, 0x80) << "unmapping";
  EXPECT_EQ(run(unit_, {0x1a, 0, 0x3f, 0, 255}).moved, 24u);
  EXPECT_EQ(in_[2], 0);
  EXPECT_EQ(in_[6], 4) << "a write cache";
  disk_->isReadOnly = true;
  run(unit_, {0x1a, 0, 0x3f, 0, 255});
  EXPECT_EQ(in_[2], 0x80);
  EXPECT_EQ(run(unit_, {0xff}).senseCode, 0x2000);
}

TEST_F(ScsiTest, TheDiskReadsAndWrites) {
  EXPECT_EQ(run(unit_, {0x28, 0, 0, 0, 0, 7, 0, 0, 2}).moved, 1024u);
  EXPECT_EQ(in_[0], 7);
  EXPECT_EQ(in_[512], 8);
  EXPECT_EQ(in_[1024], 0xee);
  EXPECT_EQ(run(unit_, {0x08, 0, 0, 9, 1}).moved, 512u);
  EXPECT_EQ(in_[0], 9);
  EXPECT_EQ(run(unit_, {0x8a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, std::vector<std::uint8_t>(512, 0xab)).moved,
            512u);
  EXPECT_EQ(disk_->content[256 * 512], 0xab);
  EXPECT_EQ(run(unit_, {0x35}).status, scsi::kGood);
  EXPECT_EQ(disk_->flushes, 1);
  EXPECT_EQ(run(unit_, {0x28, 0, 0, 0, 7, 255, 0, 0, 2}).senseCode, 0x2100);
  EXPECT_TRUE(run(unit_, {0x2a, 0, 0, 0, 0, 7, 0, 0, 2}, std::vector<std::uint8_t>(512)).overrun);
  disk_->fail = EIO;
  EXPECT_EQ(run(unit_, {0x28, 0, 0, 0, 0, 7, 0, 0, 2}).senseKey, scsi::kMediumError);
  disk_->isReadOnly = true;
  EXPECT_EQ(run(unit_, {0x2a, 0, 0, 0, 0, 7, 0, 0, 1}, std::vector<std::uint8_t>(512)).senseKey, scsi::kDataProtect);
}

TEST_F(ScsiTest, TheDiskUnmapsAndZeroes) {
  std::vector<std::uint8_t> list{0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0};
  EXPECT_EQ(run(unit_, {0x42, 0, 0, 0, 0, 0, 0, 0, 24}, list).status, scsi::kGood);
  list[12] = 1;
  EXPECT_EQ(run(unit_, {0x42, 0, 0, 0, 0, 0, 0, 0, 24}, list).senseCode, 0x2100);
  EXPECT_EQ(run(unit_, {0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8}, std::vector<std::uint8_t>(512)).status,
            scsi::kGood);
  EXPECT_EQ(run(unit_, {0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8}, std::vector<std::uint8_t>(512, 1)).senseCode,
            0x2400);
}

TEST_F(ScsiTest, TheCdRomIsAnAtapiDrive) {
  EXPECT_EQ(run(cdrom_, {0x12, 0, 0, 0, 36}).moved, 36u);
  EXPECT_EQ(in_[0], 5);
  cdrom_.change(cd_, false);
  auto attention = run(cdrom_, {0});
  EXPECT_EQ(attention.status, scsi::kCheckCondition);
  EXPECT_EQ(attention.senseKey, scsi::kUnitAttention);
  EXPECT_EQ(attention.senseCode, 0x2800);
  EXPECT_EQ(run(cdrom_, {0}).status, scsi::kGood);
  EXPECT_EQ(run(cdrom_, {0x28, 0, 0, 0, 0, 3, 0, 0, 40}).moved, 40u * 2048);
  EXPECT_EQ(in_[0], 3);
  EXPECT_EQ(in_[39 * 2048], 42);
  EXPECT_GT(run(cdrom_, {0x1a, 0, 0x2a, 0, 128}).moved, 20u);
  EXPECT_EQ(in_[4], 0x2a);
  run(cdrom_, {0x1e, 0, 0, 0, 1});
  EXPECT_FALSE(cdrom_.change(nullptr, false));
  EXPECT_TRUE(cdrom_.change(nullptr, true));
  EXPECT_EQ(run(cdrom_, {0x25}).senseKey, scsi::kNotReady);
}

}  // namespace
}  // namespace lodge
