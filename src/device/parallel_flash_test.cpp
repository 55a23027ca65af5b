// SPDX-License-Identifier: Apache-2.0
#include "device/parallel_flash.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

constexpr std::uint64_t kBytes = 0x4000;
constexpr Gpa kBase{4_GiB - kBytes};

class ParallelFlashTest : public testing::Test {
 protected:
  ParallelFlashTest() {
    memory_->setMapObserver([this] { ++changes_; });
  }
  ParallelFlash make(bool readOnly = false) {
    for (std::uint64_t at = 0; at < kBytes; ++at) contents(at) = static_cast<std::byte>(at >> 4);
    return ParallelFlash({.memory = *memory_,
                          .region = 2,
                          .base = kBase,
                          .offset = memory_->romOffset(),
                          .bytes = kBytes,
                          .readOnly = readOnly,
                          .store = [this](std::uint64_t offset, std::span<const std::byte> bytes) {
                            stored_.emplace_back(offset, bytes.size());
                          }});
  }
  std::byte& contents(std::uint64_t at) { return memory_->deviceView()[memory_->romOffset() + at]; }
  bool mapped() { return memory_->isRam(kBase); }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB, {.rom = kBytes, .video = 0}));
  std::vector<std::pair<std::uint64_t, std::size_t>> stored_;
  int changes_ = 0;
};

TEST_F(ParallelFlashTest, ContentsAreMemoryUntilACommandComes) {
  ParallelFlash flash = make();
  std::uint8_t value = 0;
  ASSERT_TRUE(memory_->readObject(kBase + 0x345, value));
  EXPECT_EQ(value, 0x34);
  EXPECT_EQ(memory_->writableOffsetOf(kBase), GuestMemory::kNoOffset);
  flash.write(0, 1, 0x70);
  EXPECT_FALSE(mapped());
  EXPECT_EQ(flash.read(0x345, 4), 0x80808080u);
  flash.write(0, 1, 0xff);
  EXPECT_TRUE(mapped());
  EXPECT_EQ(changes_, 3);
}

TEST_F(ParallelFlashTest, FirmwareTellsFlashFromRamAndRomByTheClearedStatus) {
  ParallelFlash flash = make();
  flash.write(0x10, 1, 0x50);
  EXPECT_TRUE(mapped());
  flash.write(0x10, 1, 0x70);
  EXPECT_EQ(flash.read(0x10, 1), 0u);
}

TEST_F(ParallelFlashTest, ProgrammingClearsBitsErasingSetsThem) {
  ParallelFlash flash = make();
  flash.write(0x1f5, 1, 0x40);
  EXPECT_EQ(flash.read(0, 1), 0x80u);
  flash.write(0x1f5, 1, 0xf3);
  EXPECT_EQ(flash.read(0, 1), 0x80u);
  EXPECT_EQ(contents(0x1f5), std::byte{0x1f & 0xf3});
  flash.write(0x1234, 1, 0x20);
  flash.write(0x1234, 1, 0xd0);
  EXPECT_EQ(flash.read(0, 1), 0x80u);
  EXPECT_EQ(contents(0x1000), std::byte{0xff});
  EXPECT_EQ(contents(0x1fff), std::byte{0xff});
  EXPECT_EQ(contents(0xfff), std::byte{0xff});
  EXPECT_EQ(contents(0x2000), std::byte{0x00});
  flash.write(0x1100, 1, 0x10);
  flash.write(0x1100, 2, 0x4321);
  EXPECT_EQ(contents(0x1100), std::byte{0x21});
  EXPECT_EQ(contents(0x1101), std::byte{0x43});
  std::vector<std::pair<std::uint64_t, std::size_t>> expected{{0x1f5, 1}, {0x1000, 4096}, {0x1100, 1}, {0x1101, 1}};
  EXPECT_EQ(stored_, expected);
}

TEST_F(ParallelFlashTest, AWrongConfirmationIsASequenceError) {
  ParallelFlash flash = make();
  flash.write(0x1000, 1, 0x20);
  flash.write(0x1000, 1, 0xff);
  EXPECT_EQ(flash.read(0, 1), 0xb0u);
  EXPECT_EQ(contents(0x1000), std::byte{0});
  flash.write(0, 1, 0x50);
  flash.write(0, 1, 0x60);
  flash.write(0, 1, 0xd0);
  EXPECT_EQ(flash.read(0, 1), 0x80u);
}

TEST_F(ParallelFlashTest, AWriteProtectedChipKeepsItsContents) {
  ParallelFlash flash = make(true);
  flash.write(0x1f0, 1, 0x10);
  flash.write(0x1f0, 1, 0);
  EXPECT_EQ(flash.read(0, 1), 0x92u);
  EXPECT_EQ(contents(0x1f0), std::byte{0x1f});
  flash.write(0, 1, 0x50);
  flash.write(0x1000, 1, 0x20);
  flash.write(0x1000, 1, 0xd0);
  EXPECT_EQ(flash.read(0, 1), 0xa2u);
  EXPECT_TRUE(stored_.empty());
}

TEST_F(ParallelFlashTest, TheWriteBufferIsProgrammedAtItsConfirmation) {
  ParallelFlash flash = make();
  flash.write(0x1000, 1, 0x20);
  flash.write(0x1000, 1, 0xd0);
  flash.write(0x1010, 1, 0xe8);
  EXPECT_EQ(flash.read(0x1010, 1), 0x80u);
  flash.write(0x1010, 1, 5);  // six bytes
  flash.write(0x1010, 4, 0x44332211);
  flash.write(0x1014, 2, 0x6655);
  EXPECT_EQ(contents(0x1010), std::byte{0xff});
  flash.write(0x1010, 1, 0xd0);
  EXPECT_EQ(contents(0x1010), std::byte{0x11});
  EXPECT_EQ(contents(0x1015), std::byte{0x66});
  EXPECT_EQ(contents(0x1016), std::byte{0xff});
  EXPECT_EQ(flash.read(0, 1), 0x80u);
  // Bytes outside of the buffer's place end the sequence.
  flash.write(0x1010, 1, 0xe8);
  flash.write(0x1010, 1, 0);
  flash.write(0x2010, 1, 0);
  EXPECT_EQ(flash.read(0, 1), 0xb0u);
}

TEST_F(ParallelFlashTest, IdentifierAndQuery) {
  ParallelFlash flash = make();
  flash.write(0, 1, 0x90);
  EXPECT_EQ(flash.read(0, 2), 0x1889u);
  flash.write(0x55, 1, 0x98);
  EXPECT_EQ(flash.read(0x10, 1), std::uint64_t{'Q'});
  EXPECT_EQ(flash.read(0x11, 2), std::uint64_t{'R' | 'Y' << 8});
  EXPECT_EQ(flash.read(0x27, 1), 14u);
  EXPECT_EQ(flash.read(0x2d, 4), 0x00100003u);
  flash.reset();
  EXPECT_TRUE(mapped());
}

TEST_F(ParallelFlashTest, AccessesOverTheEndAreNone) {
  ParallelFlash flash = make();
  flash.write(kBytes - 1, 1, 0x10);
  flash.write(kBytes - 1, 2, 0);
  flash.write(kBytes - 1, 1, 0);
  EXPECT_EQ(contents(kBytes - 1), std::byte{0});
  EXPECT_EQ(flash.read(kBytes - 1, 8), 0x80u);
}

}  // namespace
}  // namespace lodge
