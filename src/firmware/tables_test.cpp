// SPDX-License-Identifier: Apache-2.0
#include "firmware/tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/layout.h"
#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

using test::readAt;

TEST(Tables, LieWhereOperatingSystemsLook) {
  auto memory = test::ram(16_MiB);
  auto tables = installTables(*memory, {});
  ASSERT_TRUE(tables) << tables.error().message();
  EXPECT_EQ(tables->rsdp % 16, 0u);
  EXPECT_EQ(test::readText(*memory, tables->rsdp).substr(0, 8), "RSD PTR ");
  EXPECT_EQ(test::readText(*memory, tables->smbios).substr(0, 5), "_SM3_");
  EXPECT_EQ(readAt<std::uint16_t>(*memory, 0x40e), 0x9fc0) << "segment of the extended BIOS data area";
  EXPECT_EQ(readAt<std::uint16_t>(*memory, 0x413), 639) << "KiB of conventional memory";
}

TEST(Tables, ComeBackAfterTheGuestOverwroteThem) {
  auto memory = test::ram(16_MiB);
  ASSERT_TRUE(installTables(*memory, {}));
  test::Bytes before = test::readGuest(*memory, layout::kAcpiBase, 0x20000);
  ASSERT_TRUE(memory->fill(Gpa{layout::kAcpiBase}, std::byte{0xee}, 0x20000));
  ASSERT_TRUE(installTables(*memory, {}));
  EXPECT_EQ(test::readGuest(*memory, layout::kAcpiBase, 0x20000), before);
}

TEST(Tables, TheLargestMachineFits) {
  auto memory = test::ram(16_MiB);
  PlatformDescription platform;
  platform.cpus = 255;
  platform.hpet = 0xfed00000;
  platform.serialPorts.assign(9, {0x3f8, 4});
  EXPECT_TRUE(installTables(*memory, platform));
}

TEST(Tables, ATooLongMachineNameIsAnError) {
  auto memory = test::ram(16_MiB);
  PlatformDescription platform;
  platform.machineName = std::string(70000, 'x');
  auto tables = installTables(*memory, platform);
  ASSERT_FALSE(tables);
  EXPECT_THAT(tables.error().message(), testing::HasSubstr("SMBIOS tables of"));
}

}  // namespace
}  // namespace lodge::firmware
