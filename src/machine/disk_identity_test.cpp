// SPDX-License-Identifier: Apache-2.0
#include "machine/disk_identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>

namespace lodge {
namespace {

DiskIdentity device() {
  return {.path = "/dev/sdz", .bytes = 4096, .changed = 0, .samples = 5, .written = 80, .boot = "a"};
}

TEST(DiskIdentity, OfADeviceIsItsSizeSamplesAndWrites) {
  DiskIdentity then = device(), now = device();
  EXPECT_TRUE(now.isStill(then));
  now.written = 88;
  EXPECT_FALSE(now.isStill(then)) << "the same start of the host";
  now.boot = "b";
  EXPECT_TRUE(now.isStill(then)) << "another one: counters began anew";
  now.samples = 6;
  EXPECT_FALSE(now.isStill(then));
  now = device();
  now.bytes = 8192;
  EXPECT_FALSE(now.isStill(then));
}

TEST(DiskIdentity, OfAnOlderStateSaysNothingOfDevices) {
  DiskIdentity then{.path = "/dev/sdz"}, file = device();
  EXPECT_TRUE(device().isStill(then));
  file.changed = 1;
  EXPECT_FALSE(file.isStill(then)) << "it is a file now";
}

TEST(DiskIdentity, OfAFileIsItsSizeAndTimeOfChange) {
  char path[] = "/tmp/lodge-disk-XXXXXX";
  int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::write(fd, "disk", 4), 4);
  auto then = DiskIdentity::of(path);
  ASSERT_TRUE(then);
  EXPECT_EQ(then->bytes, 4u);
  EXPECT_NE(then->changed, 0);
  timespec times[2] = {{1, 0}, {1, 7}};
  ASSERT_EQ(::futimens(fd, times), 0);
  EXPECT_FALSE(DiskIdentity::of(path)->isStill(*then));
  EXPECT_EQ(DiskIdentity::of(path)->changed, 1'000'000'007);
  ::close(fd);
  ::unlink(path);
  EXPECT_EQ(DiskIdentity::of(path).error().kind(), ErrorKind::notFound);
  EXPECT_FALSE(DiskIdentity::of("nbd+unix:///disk?socket=/tmp/none/none"));
}

}  // namespace
}  // namespace lodge
