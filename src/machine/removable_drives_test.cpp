// SPDX-License-Identifier: Apache-2.0
#include "machine/removable_drives.h"

#include <gtest/gtest.h>

#include <fstream>

namespace lodge {
namespace {

TEST(RemovableDrives, ChangesTheDriveThatIsNamed) {
  std::string path = testing::TempDir() + "medium.iso";
  std::ofstream(path) << std::string(4096, 'x');
  RemovableDrives drives;
  EXPECT_EQ(drives.change({}).error().kind(), ErrorKind::notFound);
  std::shared_ptr<Disk> inFirst, inSecond;
  bool locked = false;
  drives.add("cd0", true, [&](std::shared_ptr<Disk> medium, bool force) {
    if (locked && !force) return false;
    inFirst = std::move(medium);
    return true;
  });
  drives.add("cd1", true, [&](std::shared_ptr<Disk> medium, bool) {
    inSecond = std::move(medium);
    return true;
  });
  EXPECT_TRUE(drives.change({.drive = "cd1", .path = path}));
  EXPECT_FALSE(inFirst);
  ASSERT_TRUE(inSecond);
  EXPECT_TRUE(inSecond->readOnly());
  EXPECT_EQ(inSecond->sizeBytes(), 4096u);
  EXPECT_TRUE(drives.change({.path = path})) << "without a name, the first";
  locked = true;
  EXPECT_EQ(drives.change({.drive = "cd0"}).error().kind(), ErrorKind::busy);
  EXPECT_TRUE(inFirst);
  EXPECT_TRUE(drives.change({.drive = "cd0", .force = true}));
  EXPECT_FALSE(inFirst);
  EXPECT_EQ(drives.change({.drive = "cd2"}).error().hint(), "its drives are cd0, cd1");
  EXPECT_EQ(drives.change({.drive = "cd1", .path = path + ".none"}).error().kind(), ErrorKind::notFound);
  EXPECT_TRUE(inSecond) << "a medium that does not open changes nothing";
}

}  // namespace
}  // namespace lodge
