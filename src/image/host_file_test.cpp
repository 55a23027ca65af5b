// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/units.h"
#include "image/block_file.h"

namespace lodge::image {
namespace {

enum class Kind : std::uint8_t { kept, fresh, freshInMemory };

struct HostFileTest : testing::TestWithParam<Kind> {
  void SetUp() override {
    path = testing::TempDir() + "/file-" + std::to_string(::getpid());
    if (GetParam() == Kind::freshInMemory) {
      memory = ::memfd_create("file", MFD_CLOEXEC);
      ASSERT_GE(memory, 0);
      path = "/proc/self/fd/" + std::to_string(memory);
    }
    auto made = hostFiles().create(path, true);
    ASSERT_TRUE(made) << made.error().message();
    made->reset();
    CacheMode cache = GetParam() == Kind::kept ? CacheMode::writeback : CacheMode::unsafe;
    auto opened = hostFiles().open(path, {.readOnly = false, .cache = cache});
    ASSERT_TRUE(opened) << opened.error().message();
    file = *opened;
  }
  void TearDown() override {
    file.reset();
    if (memory >= 0)
      ::close(memory);
    else
      ::unlink(path.c_str());
  }
  void write(std::uint64_t offset, std::size_t length) {
    model.resize(std::max(model.size(), offset + length));
    std::span<std::uint8_t> bytes(model.data() + offset, length);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random() | 1);
    ASSERT_EQ(file->write(offset, bytes.data(), length), 0);
  }
  /// What others find who open it.
  std::uint64_t lengthOnDisk() const {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : ~std::uint64_t{0};
  }
  void expectModel() {
    ASSERT_EQ(file->size(), model.size());
    std::vector<std::uint8_t> bytes(model.size());
    ASSERT_EQ(file->read(0, bytes.data(), bytes.size()), 0);
    EXPECT_TRUE(bytes == model);
    ASSERT_EQ(file->flush(), 0);
    EXPECT_EQ(lengthOnDisk(), model.size());
  }

  int memory = -1;
  std::string path;
  std::shared_ptr<BlockFile> file;
  std::vector<std::uint8_t> model;
  std::mt19937_64 random{3};
};

/// Room that is taken before a write is the write's alone: none behind the end, none in a gap.
TEST_P(HostFileTest, TakesRoomForWhatIsWritten) {
  write(3_MiB, 1_MiB);
  write(1_MiB + 512, 256_KiB + 100);
  write(5_MiB, 3);
  expectModel();
  constexpr std::uint64_t kBlocks = 64_KiB;  // what the file system adds: whole blocks, its own records
  EXPECT_GE(file->allocatedBytes(), 1_MiB + 256_KiB);
  EXPECT_LE(file->allocatedBytes(), 1_MiB + 256_KiB + kBlocks);
  EXPECT_TRUE(file->extent(2_MiB, 512_KiB).hole);
}

TEST_P(HostFileTest, WritesAgainAndShrinks) {
  write(0, 2_MiB);
  write(512_KiB, 1_MiB);
  ASSERT_EQ(file->truncate(1_MiB), 0);
  model.resize(1_MiB);
  write(2_MiB, 128_KiB);
  expectModel();
  EXPECT_LE(file->allocatedBytes(), 1_MiB + 128_KiB + 64_KiB);
  write(3_MiB, 1);
  file.reset();
  EXPECT_EQ(lengthOnDisk(), 3_MiB + 1);
}

/// Threads that write at a time, each where nobody else does, the file growing all the while, with flushes between.
TEST_P(HostFileTest, GrowsUnderSeveralWriters) {
  constexpr std::uint64_t kPiece = 256_KiB, kPieces = 320;  // more than a file in memory is lengthened by at once
  model.resize(kPiece * kPieces);
  for (std::size_t i = 0; i < model.size(); i += 8)
    for (std::size_t k = 0; k < 8; ++k)
      model[i + k] = static_cast<std::uint8_t>(i / 8 * 0x9e3779b97f4a7c15 >> (56 - k));
  std::atomic<std::uint64_t> next = 0;
  std::atomic<int> errors = 0;
  auto work = [&] {
    for (std::uint64_t piece = next++; piece < kPieces; piece = next++) {
      // Pieces in another order, some in two parts that are no whole pages.
      std::uint64_t at = (piece ^ 3) * kPiece, first = piece % 5 == 0 ? kPiece - 100 : kPiece;
      if (file->write(at, model.data() + at, first) != 0) ++errors;
      if (first < kPiece && file->write(at + first, model.data() + at + first, kPiece - first) != 0) ++errors;
      if (piece % 16 == 0 && file->flush() != 0) ++errors;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(errors, 0);
  expectModel();
}

INSTANTIATE_TEST_SUITE_P(Kept, HostFileTest, testing::Values(Kind::kept));
INSTANTIATE_TEST_SUITE_P(Fresh, HostFileTest, testing::Values(Kind::fresh));
INSTANTIATE_TEST_SUITE_P(FreshInMemory, HostFileTest, testing::Values(Kind::freshInMemory));

}  // namespace
}  // namespace lodge::image
