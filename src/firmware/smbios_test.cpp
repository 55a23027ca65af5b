// SPDX-License-Identifier: Apache-2.0
#include "firmware/smbios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "base/bytes.h"
#include "base/units.h"

namespace lodge::firmware {
namespace {

using testing::HasSubstr;

TEST(Smbios, EntryPointAddsUpAndStructuresEndWith127) {
  std::vector<std::uint8_t> area = buildSmbios({}, 8_GiB, 0xf0000);
  EXPECT_EQ(std::string(area.begin(), area.begin() + 5), "_SM3_");
  EXPECT_EQ(std::accumulate(area.begin(), area.begin() + 24, 0u) & 0xff, 0u);
  EXPECT_EQ(loadLe<std::uint64_t>(area.data() + 16), 0xf0020u);
  ASSERT_EQ(loadLe<std::uint32_t>(area.data() + 12) + 32, area.size());
  std::vector<unsigned> types;
  for (std::size_t at = 32; at < area.size();) {
    types.push_back(area[at]);
    at += area[at + 1];
    while (area[at] != 0 || area[at + 1] != 0) ++at;
    at += 2;
  }
  EXPECT_EQ(types, (std::vector<unsigned>{0, 1, 3, 4, 16, 17, 19, 19, 32, 127}));
}

TEST(Smbios, UuidDependsOnTheNameAndIsVersion8) {
  auto one = machineUuid("one");
  EXPECT_EQ(one, machineUuid("one"));
  EXPECT_NE(one, machineUuid("two"));
  EXPECT_NE(machineUuid("ab"), machineUuid("ba"));
  EXPECT_EQ(one[6] >> 4, 8);
  EXPECT_EQ(one[8] >> 6, 2);
}

TEST(Smbios, DmidecodeAgrees) {
  if (std::system("command -v dmidecode >/dev/null 2>&1") != 0) GTEST_SKIP() << "no dmidecode (package dmidecode)";
  std::string pattern = (std::filesystem::temp_directory_path() / "lodge-smbios-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  std::filesystem::path folder = pattern;
  PlatformDescription platform;
  platform.cpus = 3;
  platform.machineName = "web-1";
  // dmidecode's dump format: the entry point with the table's file offset in place of its address.
  std::vector<std::uint8_t> area = buildSmbios(platform, 2_GiB, 0);
  std::ofstream(folder / "dump", std::ios::binary)
      .write(reinterpret_cast<const char*>(area.data()), static_cast<std::streamsize>(area.size()));
  int status = std::system(
      ("dmidecode --from-dump " + (folder / "dump").string() + " >" + (folder / "out").string() + " 2>&1").c_str());
  std::stringstream out;
  out << std::ifstream(folder / "out").rdbuf();
  std::filesystem::remove_all(folder);
  EXPECT_EQ(status, 0) << out.str();
  for (const char* expected :
       {"Product Name: Lodge", "Serial Number: web-1", "Core Count: 3", "Size: 2 GB", "Maximum Capacity: 2 GB",
        "System is a virtual machine", "No errors detected", "End Of Table"}) {
    EXPECT_THAT(out.str(), HasSubstr(expected));
  }
  for (const char* wrong : {"Wrong", "TRUNCATED", "broken", "Invalid"})
    EXPECT_EQ(out.str().find(wrong), std::string::npos) << out.str();
}

}  // namespace
}  // namespace lodge::firmware
