// SPDX-License-Identifier: Apache-2.0
#include "image/image_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "image/nbd_client.h"

namespace lodge::image {
namespace {

// What the guest of a network disk has written there is looked at by nobody who was not told what it is.
TEST(ImageFiles, ANetworkDiskWithoutAFormatHasNoOthers) {
  DiskOptions disk{.path = "nbd+unix:///disk?socket=/tmp/none/none"};
  auto none = filesOf(disk);
  ASSERT_TRUE(none) << none.error().message();
  EXPECT_TRUE(none->empty());
  disk.format = "qcow2";
  EXPECT_FALSE(filesOf(disk)) << "there is no server";
  EXPECT_EQ(openedNbd(disk.path), nullptr);
}

TEST(ImageFiles, AreTheDisksOwnAndThoseBehindIt) {
  char path[] = "/tmp/lodge-disk-XXXXXX";
  int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
  auto own = filesOf({.path = path, .format = "raw"});
  ASSERT_TRUE(own) << own.error().message();
  EXPECT_EQ(*own, std::vector<std::string>{path});
  EXPECT_EQ(formatByContent(path), "raw");
  ::close(fd);
  ::unlink(path);
  EXPECT_FALSE(filesOf({.path = path, .format = "raw"}));
}

}  // namespace
}  // namespace lodge::image
