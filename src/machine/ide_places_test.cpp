// SPDX-License-Identifier: Apache-2.0
#include "machine/ide_places.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

DriveConfig drive(bool cdrom, std::optional<unsigned> unit = {}) {
  DriveConfig drive;
  drive.bus = DriveBus::ide;
  drive.cdrom = cdrom;
  drive.unit = unit;
  return drive;
}

TEST(IdePlaces, AreWhereEverybodyExpectsThem) {
  MachineConfig config;
  config.disks = {drive(false), DriveConfig(), drive(true), drive(false), drive(true)};
  auto places = idePlaces(config);
  ASSERT_TRUE(places);
  EXPECT_EQ(*places, (std::map<std::size_t, unsigned>{{0, 0}, {2, 2}, {3, 1}, {4, 3}}));
}

TEST(IdePlaces, AreThoseThatAreNamed) {
  MachineConfig config;
  config.disks = {drive(false), drive(false, 0), drive(true), drive(false, 2)};
  auto places = idePlaces(config);
  ASSERT_TRUE(places);
  EXPECT_EQ(*places, (std::map<std::size_t, unsigned>{{0, 1}, {1, 0}, {2, 3}, {3, 2}}));
}

TEST(IdePlaces, HaveOneDriveEach) {
  MachineConfig config;
  config.disks = {drive(false, 1), drive(true, 1)};
  EXPECT_EQ(idePlaces(config).error().kind(), ErrorKind::invalidArgument);
  config.disks = {drive(false), drive(false), drive(false), drive(false), drive(true)};
  EXPECT_EQ(idePlaces(config).error().kind(), ErrorKind::invalidArgument);
  config.disks = {drive(false, 4)};
  EXPECT_FALSE(idePlaces(config));
  config.disks = {drive(false, 0)};
  config.disks[0].bus = DriveBus::virtio;
  EXPECT_FALSE(idePlaces(config));
}

}  // namespace
}  // namespace lodge
