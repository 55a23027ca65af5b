// SPDX-License-Identifier: Apache-2.0
#include "image/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <random>
#include <vector>

#include "base/units.h"

namespace lodge {
namespace {

struct DiskTest : testing::Test {
  void SetUp() override {
    path = testing::TempDir() + "/disk-" + std::to_string(::getpid()) + ".raw";
    content.resize(1_MiB);
    std::mt19937_64 random(7);
    for (auto& b : content) b = static_cast<std::uint8_t>(random());
    rewrite();
  }
  void TearDown() override { ::unlink(path.c_str()); }
  void rewrite() {
    int fd = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ASSERT_EQ(::write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    ::close(fd);
  }
  std::unique_ptr<Disk> open(bool readOnly = false, bool snapshot = false) {
    auto disk = openDisk({path, "raw", readOnly, snapshot});
    EXPECT_TRUE(disk) << (disk ? "" : disk.error().message());
    return disk ? std::move(*disk) : nullptr;
  }
  template <class F>
  static int wait(F&& request) {
    std::promise<int> done;
    request([&](int error) { done.set_value(error); });
    return done.get_future().get();
  }
  static int read(Disk& d, std::uint64_t at, std::vector<std::uint8_t>& to) {
    iovec v[2] = {{to.data(), to.size() / 3}, {to.data() + to.size() / 3, to.size() - to.size() / 3}};
    return wait([&](auto done) { d.read(at, v, done); });
  }
  static int write(Disk& d, std::uint64_t at, const std::vector<std::uint8_t>& from) {
    iovec v{const_cast<std::uint8_t*>(from.data()), from.size()};
    return wait([&](auto done) { d.write(at, {&v, 1}, done); });
  }

  std::string path;
  std::vector<std::uint8_t> content;
};

TEST_F(DiskTest, mirrorsRandomOperationsAndSnapshotLeavesTheFileAlone) {
  for (bool snapshot : {false, true}) {
    rewrite();
    std::vector<std::uint8_t> model = content;
    auto disk = open(false, snapshot);
    std::mt19937_64 random(snapshot ? 3 : 4);
    for (int i = 0; i < 400; ++i) {
      std::uint64_t at = random() % (model.size() - 1),
                    length = 1 + random() % std::min<std::uint64_t>(20000, model.size() - at);
      if (random() % 3 == 0) {
        std::vector<std::uint8_t> data(length, static_cast<std::uint8_t>(random()));
        ASSERT_EQ(write(*disk, at, data), 0);
        std::copy(data.begin(), data.end(), model.begin() + static_cast<long>(at));
      } else if (random() % 4 == 0) {
        ASSERT_EQ(wait([&](auto done) { disk->writeZeroes(at, length, random() % 2 == 0, done); }), 0);
        std::fill_n(model.begin() + static_cast<long>(at), length, std::uint8_t{0});
      } else {
        std::vector<std::uint8_t> got(length);
        ASSERT_EQ(read(*disk, at, got), 0);
        ASSERT_TRUE(std::equal(got.begin(), got.end(), model.begin() + static_cast<long>(at)));
      }
    }
    ASSERT_EQ(wait([&](auto done) { disk->flush(done); }), 0);
    disk.reset();
    auto again = open(true);
    std::vector<std::uint8_t> all(model.size());
    ASSERT_EQ(read(*again, 0, all), 0);
    EXPECT_EQ(all, snapshot ? content : model);
  }
}

TEST_F(DiskTest, writersExcludeEachOtherAndReadersShare) {
  auto writer = open();
  auto second = openDisk({path, "raw", false, false});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::busy);
  EXPECT_NE(second.error().message().find(path), std::string::npos);
  EXPECT_FALSE(openDisk({path, "raw", true, false})) << "a reader would see it change";
  writer.reset();
  auto reader = open(true);
  EXPECT_TRUE(openDisk({path, "raw", true, false}));
  EXPECT_FALSE(openDisk({path, "raw", false, false}));
}

TEST_F(DiskTest, oddSizesRoundUpAndReadZeroBeyondTheEnd) {
  ASSERT_EQ(::truncate(path.c_str(), 1000), 0);
  auto disk = open();
  EXPECT_EQ(disk->sizeBytes(), 1024u);
  std::vector<std::uint8_t> got(1024, 0xee);
  ASSERT_EQ(read(*disk, 0, got), 0);
  EXPECT_EQ(got[999], content[999]);
  EXPECT_EQ(got[1000], 0);
  EXPECT_EQ(got[1023], 0);
}

TEST_F(DiskTest, discardFreesTheHostsRoom) {
  auto disk = open();
  struct stat before {
  }, after{};
  ::stat(path.c_str(), &before);
  ASSERT_EQ(wait([&](auto done) { disk->discard(0, 512_KiB, done); }), 0);
  ::stat(path.c_str(), &after);
  if (after.st_blocks == before.st_blocks) GTEST_SKIP() << "the file system keeps no holes";
  std::vector<std::uint8_t> got(4096, 1);
  ASSERT_EQ(read(*disk, 0, got), 0);
  EXPECT_EQ(got, std::vector<std::uint8_t>(4096, 0));
}

TEST_F(DiskTest, errorsNameTheFile) {
  auto missing = openDisk({"/nonexistent/x.raw", "raw", false, false});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), ErrorKind::notFound);
  EXPECT_EQ(missing.error().message(), "disk: open '/nonexistent/x.raw': No such file or directory");
  EXPECT_EQ(openDisk({path, "fs.img", false, false}).error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(openDisk({"/tmp", "raw", true, false}).error().kind(), ErrorKind::invalidArgument);
  ASSERT_EQ(::truncate(path.c_str(), 0), 0);
  EXPECT_EQ(openDisk({path, "raw", false, false}).error().kind(), ErrorKind::invalidArgument);
}

TEST_F(DiskTest, qemuAndLodgeRefuseEachOther) {
  if (std::system("command -v qemu-io >/dev/null 2>&1") != 0) GTEST_SKIP() << "qemu-io is not installed";
  auto disk = open();
  std::string command = "qemu-io -f raw -c 'read 0 512' '" + path + "' >/dev/null 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  disk.reset();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace lodge
