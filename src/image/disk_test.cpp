// SPDX-License-Identifier: Apache-2.0
#include "image/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <random>
#include <vector>

#include "base/units.h"
#include "image/uring.h"

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
  /// Random requests, many in flight, past the page cache; the model knows what must be there afterwards. `rings`: how
  /// many of them went by io_uring.
  void manyInFlight(std::uint64_t& rings) {
    auto disk = openDisk({.path = path, .format = "raw", .cache = image::CacheMode::none});
    ASSERT_TRUE(disk) << disk.error().message();
    constexpr std::size_t kBlock = 4096;
    std::mt19937_64 random(5);
    std::unique_ptr<std::uint8_t, void (*)(void*)> bytes(
        static_cast<std::uint8_t*>(std::aligned_alloc(kBlock, content.size())), std::free);
    std::vector<std::uint8_t> model = content;
    std::vector<std::future<int>> ends;
    std::vector<iovec> vectors(content.size() / kBlock);
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      std::uint8_t* at = bytes.get() + i * kBlock;
      vectors[i] = {at, kBlock};
      auto promise = std::make_shared<std::promise<int>>();
      ends.push_back(promise->get_future());
      auto done = [promise](int error) { promise->set_value(error); };
      if (i % 2 == 0) {
        std::fill_n(at, kBlock, static_cast<std::uint8_t>(random()));
        std::copy_n(at, kBlock, model.begin() + static_cast<long>(i * kBlock));
        (*disk)->write(i * kBlock, {&vectors[i], 1}, done);
      } else {
        (*disk)->read(i * kBlock, {&vectors[i], 1}, done);
      }
    }
    for (auto& end : ends) ASSERT_EQ(end.get(), 0);
    rings = ringRequests();
    ASSERT_TRUE(std::equal(model.begin(), model.end(), bytes.get()));
    std::vector<std::uint8_t> all(model.size());
    ASSERT_EQ(read(**disk, 0, all), 0);
    ASSERT_EQ(all, model);
  }
  static std::string ring() {
    for (int fd = 0; fd < 256; ++fd) {
      char target[64] = {};
      std::string number = std::to_string(fd);
      if (::readlink(("/proc/self/fd/" + number).c_str(), target, sizeof target - 1) > 0 &&
          std::strstr(target, "[io_uring]"))
        return number;
    }
    return {};
  }
  static bool hasRing() { return !ring().empty(); }
  /// How many requests the kernel ended by this process's io_uring: what it says itself.
  static std::uint64_t ringRequests() {
    std::ifstream about("/proc/self/fdinfo/" + ring());
    for (std::string word; about >> word;) {
      if (word != "CqTail:") continue;
      std::uint64_t ended = 0;
      about >> ended;
      return ended;
    }
    return 0;
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

TEST_F(DiskTest, keepsManyRequestsInFlight) {
  std::uint64_t rings = 0;
  manyInFlight(rings);
  if (!image::Uring::create()) GTEST_SKIP() << "io_uring is not allowed here; requests went by threads";
  int direct = ::open(path.c_str(), O_RDONLY | O_DIRECT);
  if (direct < 0) GTEST_SKIP() << "the file system has no O_DIRECT; requests went by threads";
  ::close(direct);
  EXPECT_EQ(rings, content.size() / 4096) << "requests that went by io_uring";
}

/// In a process of its own where io_uring is forbidden, as containers do it.
TEST_F(DiskTest, doesWithoutIoUring) {
  pid_t child = ::fork();
  if (child == 0) {
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program{std::size(code), code};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      ::_exit(77);
    auto disk = open();
    bool ring = hasRing();
    disk.reset();
    std::uint64_t rings = 0;
    manyInFlight(rings);
    ::_exit(ring || rings != 0 ? 2 : HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "seccomp filters are not allowed here";
  EXPECT_EQ(status, 0);
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
