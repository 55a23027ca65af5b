// SPDX-License-Identifier: Apache-2.0
#include "state/state_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/memory_file.h"
#include "base/units.h"
#include "state/snapshot.h"

namespace lodge::state {
namespace {

class StateFileTest : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::size_t kBytes = 1_MiB + 3 * kPageSize;

  void SetUp() override {
    char name[] = "/tmp/lodge-state-XXXXXX";
    folder_ = ::mkdtemp(name);
    path_ = folder_ + "/machine.state";
    memoryFd_ = makeMemoryFile("test");
    ASSERT_EQ(::ftruncate(memoryFd_.get(), kBytes), 0);
    memory_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memoryFd_.get(), 0));
    for (std::size_t i = 0; i < kPageSize; ++i) memory_[5 * kPageSize + i] = std::byte(i * 7);
    for (std::size_t i = 0; i < 3 * kPageSize; ++i) memory_[kBytes - 1 - i] = std::byte(::rand());
    memory_[0] = std::byte{1};
  }
  void TearDown() override {
    ::munmap(memory_, kBytes);
    std::filesystem::remove_all(folder_);
  }
  Status save() {
    auto writer = StateFileWriter::create(path_);
    if (!writer) return std::move(writer).error();
    std::uint64_t last = 0;
    auto progress = [&](std::uint64_t done, std::uint64_t) { last = done; };
    if (Status s = (*writer)->writeMemory({memory_, kBytes}, memoryFd_.get(), GetParam(), progress); !s) return s;
    EXPECT_EQ(last, kBytes);
    Snapshot snapshot;
    snapshot.section("one", 1, [](Archive& a) {
      std::uint32_t number = 5;
      a(number);
    });
    if (Status s = (*writer)->writeSections(*snapshot.bytes()); !s) return s;
    return (*writer)->commit();
  }
  void change(off_t at, std::uint8_t byte) const {
    UniqueFd fd(::open(path_.c_str(), O_WRONLY));
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, at), 1);
  }

  std::string folder_, path_;
  UniqueFd memoryFd_;
  std::byte* memory_ = nullptr;
};

TEST_P(StateFileTest, MemoryAndSectionsComeBack) {
  ASSERT_TRUE(save());
  auto file = StateFile::open(path_);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ((*file)->memoryBytes(), kBytes);
  EXPECT_TRUE((*file)->isZero(3));
  std::vector<std::byte> piece(kChunkBytes);
  for (std::size_t i = 0; i < (*file)->chunkCount(); ++i) {
    auto part = std::span(piece).first((*file)->chunkBytes(i));
    ASSERT_TRUE((*file)->loadChunk(i, part));
    EXPECT_EQ(std::memcmp(part.data(), memory_ + i * kChunkBytes, part.size()), 0) << i;
  }
  EXPECT_TRUE(Snapshot::parse((*file)->sections()));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

TEST_P(StateFileTest, AnEarlierFileStaysUntilTheNextIsWhole) {
  ASSERT_TRUE(save());
  {
    auto writer = StateFileWriter::create(path_);
    ASSERT_TRUE(writer);
    EXPECT_EQ(StateFileWriter::create(path_).error().kind(), ErrorKind::busy);
    ASSERT_TRUE((*writer)->writeMemory({memory_, kBytes}, memoryFd_.get(), GetParam(), {}));
  }
  EXPECT_TRUE(StateFile::open(path_));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

// One that begins while another ends must not take the other's file, which has its name by then, for what was left
// behind.
TEST_P(StateFileTest, SavesAtOnceLeaveAWholeFile) {
  auto work = [&] {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
    while (std::chrono::steady_clock::now() < deadline) {
      Status done = save();
      if (!done && done.error().kind() != ErrorKind::busy) ADD_FAILURE() << done.error().message();
    }
  };
  ASSERT_TRUE(save());
  std::thread one(work), two(work);
  one.join();
  two.join();
  EXPECT_TRUE(StateFile::open(path_));
}

TEST_P(StateFileTest, TruncatedChangedAndNewerFilesAreRefused) {
  ASSERT_TRUE(save());
  auto size = static_cast<off_t>(std::filesystem::file_size(path_));
  ASSERT_EQ(::truncate(path_.c_str(), size - 1), 0);
  EXPECT_EQ(StateFile::open(path_).error().kind(), ErrorKind::corrupt);
  ASSERT_EQ(::truncate(path_.c_str(), 100), 0);
  EXPECT_EQ(StateFile::open(path_).error().kind(), ErrorKind::corrupt);
  ASSERT_TRUE(save());
  change(size - 1, 0x5a);
  EXPECT_EQ(StateFile::open(path_).error().kind(), ErrorKind::corrupt);
  ASSERT_TRUE(save());
  change(20, 0x5a);
  EXPECT_EQ(StateFile::open(path_).error().kind(), ErrorKind::corrupt);
  ASSERT_TRUE(save());
  change(8, 2);
  EXPECT_EQ(StateFile::open(path_).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(StateFile::open(folder_ + "/none").error().kind(), ErrorKind::notFound);
  EXPECT_EQ(StateFile::open(folder_).error().kind(), ErrorKind::corrupt);
}

TEST_P(StateFileTest, ADamagedPieceOfMemoryIsFound) {
  ASSERT_TRUE(save());
  change(4096, 0x77);
  auto file = StateFile::open(path_);
  ASSERT_TRUE(file);
  std::vector<std::byte> piece(kChunkBytes);
  EXPECT_EQ((*file)->loadChunk(0, piece).error().kind(), ErrorKind::corrupt);
}

TEST_P(StateFileTest, NoSpaceIsAnError) {
  // /dev/full is no regular file; a limit on the size of files fails like a full disk.
  rlimit before{}, small{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  small = before;
  small.rlim_cur = 8192;
  auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  Status done = save();
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(done);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

INSTANTIATE_TEST_SUITE_P(Both, StateFileTest, testing::Bool());

}  // namespace
}  // namespace lodge::state
