// SPDX-License-Identifier: Apache-2.0
#include "firmware/acpi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>

#include "base/bytes.h"
#include "base/units.h"

namespace lodge::firmware {
namespace {

using testing::HasSubstr;
using Area = std::vector<std::uint8_t>;

constexpr std::uint64_t kBase = 0xe0000;

PlatformDescription everything() {
  PlatformDescription platform;
  platform.cpus = 4;
  platform.hpet = 0xfed00000;
  platform.pvpanic = 0x505;
  platform.fwCfg = 0x510;
  platform.dma = platform.floppy = true;
  platform.window64Base = 1_TiB / 2;
  platform.window64Size = 64_GiB;
  return platform;
}

template <class T>
T at(std::span<const std::uint8_t> bytes, std::size_t offset) {
  return loadLe<T>(bytes.data() + offset);
}
unsigned sum(std::span<const std::uint8_t> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0u) & 0xff;
}

/// The tables by signature, found as an operating system finds them: RSDP, XSDT, FADT.
std::map<std::string, Area> walk(const Area& area) {
  std::map<std::string, Area> tables;
  auto table = [&](std::uint64_t address) {
    std::size_t offset = address - kBase;
    return Area(area.begin() + static_cast<long>(offset),
                area.begin() + static_cast<long>(offset + at<std::uint32_t>(area, offset + 4)));
  };
  Area xsdt = table(at<std::uint64_t>(area, 24));
  tables["XSDT"] = xsdt;
  for (std::size_t offset = kAcpiHeaderBytes; offset < xsdt.size(); offset += 8) {
    Area entry = table(at<std::uint64_t>(xsdt, offset));
    tables[std::string(entry.begin(), entry.begin() + 4)] = entry;
  }
  tables["FACS"] = table(at<std::uint32_t>(tables["FACP"], 36));
  tables["DSDT"] = table(at<std::uint64_t>(tables["FACP"], 140));
  return tables;
}

TEST(Acpi, RootPointerHasBothChecksums) {
  Area area = buildAcpi(everything(), kBase);
  EXPECT_EQ(std::string(area.begin(), area.begin() + 8), "RSD PTR ");
  EXPECT_EQ(area[15], 2);
  EXPECT_EQ(at<std::uint32_t>(area, 20), 36u);
  EXPECT_EQ(sum(std::span(area).first(20)), 0u);
  EXPECT_EQ(sum(std::span(area).first(36)), 0u);
}

TEST(Acpi, EveryTableIsReachableAndAddsUpToZero) {
  auto tables = walk(buildAcpi(everything(), kBase));
  for (const char* signature : {"XSDT", "FACP", "DSDT", "APIC", "MCFG", "HPET"}) {
    ASSERT_TRUE(tables.count(signature)) << signature;
    EXPECT_EQ(sum(tables[signature]), 0u) << signature;
  }
  EXPECT_EQ(tables["FACS"].size(), 64u);
  PlatformDescription plain;
  EXPECT_FALSE(walk(buildAcpi(plain, kBase)).count("HPET"));
}

TEST(Acpi, FadtGivesThePorts) {
  PlatformDescription platform = everything();
  platform.pm1aEvent = 0xb000;
  platform.pm1aControl = 0xb004;
  platform.pmTimer = 0xb008;
  auto tables = walk(buildAcpi(platform, kBase));
  const Area& fadt = tables["FACP"];
  ASSERT_EQ(fadt.size(), 276u);
  EXPECT_EQ(fadt[8], 6);
  EXPECT_EQ(at<std::uint16_t>(fadt, 46), 9u) << "SCI_INT";
  EXPECT_EQ(at<std::uint32_t>(fadt, 48), 0u) << "SMI_CMD: none, ACPI mode from the start";
  EXPECT_EQ(at<std::uint32_t>(fadt, 56), 0xb000u);
  EXPECT_EQ(at<std::uint32_t>(fadt, 64), 0xb004u);
  EXPECT_EQ(at<std::uint32_t>(fadt, 76), 0xb008u);
  EXPECT_EQ(fadt[88], 4) << "PM1_EVT_LEN";
  EXPECT_EQ(at<std::uint64_t>(fadt, 120), 0xcf9u) << "reset register";
  EXPECT_EQ(fadt[128], 6) << "reset value";
  EXPECT_EQ(at<std::uint64_t>(fadt, 152), 0xb000u) << "X_PM1a_EVT_BLK";
  EXPECT_EQ(at<std::uint64_t>(fadt, 176), 0xb004u) << "X_PM1a_CNT_BLK";
  EXPECT_EQ(at<std::uint64_t>(fadt, 212), 0xb008u) << "X_PM_TMR_BLK";
  EXPECT_FALSE(at<std::uint32_t>(fadt, 112) & (1 << 4)) << "power button is a fixed feature";
  EXPECT_TRUE(at<std::uint32_t>(fadt, 112) & (1 << 10)) << "reset register supported";
}

TEST(Acpi, MadtListsProcessorsAndOverrides) {
  PlatformDescription platform;
  platform.cpus = 255;
  auto tables = walk(buildAcpi(platform, kBase));
  const Area& madt = tables["APIC"];
  std::map<unsigned, unsigned> counts;
  std::map<unsigned, unsigned> overrides;
  for (std::size_t offset = 44; offset < madt.size(); offset += madt[offset + 1]) {
    ASSERT_GE(madt[offset + 1], 2);
    ++counts[madt[offset]];
    if (madt[offset] == 0) {
      EXPECT_EQ(madt[offset + 3], counts[0] - 1) << "APIC ids count up";
    }
    if (madt[offset] == 2) overrides[madt[offset + 3]] = at<std::uint32_t>(madt, offset + 4);
  }
  EXPECT_EQ(counts[0], 255u);
  EXPECT_EQ(counts[1], 1u);
  EXPECT_EQ(overrides, (std::map<unsigned, unsigned>{{0, 2}, {9, 9}}));
}

TEST(Acpi, McfgCoversTheBuses) {
  auto tables = walk(buildAcpi(everything(), kBase));
  const Area& mcfg = tables["MCFG"];
  EXPECT_EQ(at<std::uint64_t>(mcfg, 44), 0xe0000000u);
  EXPECT_EQ(mcfg[54], 0);
  EXPECT_EQ(mcfg[55], 0);
}

TEST(Acpi, ImpossiblePlatformsAreRefused) {
  auto message = [](auto change) {
    PlatformDescription platform;
    change(platform);
    Status status = checkPlatform(platform);
    return status ? std::string("fine") : status.error().message();
  };
  EXPECT_EQ(message([](auto&) {}), "fine");
  EXPECT_THAT(message([](auto& p) { p.cpus = 256; }), HasSubstr("256 CPUs"));
  EXPECT_THAT(message([](auto& p) { p.ecamBase = 2_GiB; }), HasSubstr("ECAM"));
  EXPECT_THAT(message([](auto& p) { p.window64Size = 1_GiB; }), HasSubstr("64-bit PCI window"));
  EXPECT_THAT(message([](auto& p) { p.gpe0Length = 3; }), HasSubstr("GPE0"));
  EXPECT_THAT(message([](auto& p) { p.pmTimer = 0xfffe; }), HasSubstr("ports end"));
}

class Iasl : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v iasl >/dev/null 2>&1") != 0) GTEST_SKIP() << "no iasl (package acpica-tools)";
    std::string pattern = (std::filesystem::temp_directory_path() / "lodge-acpi-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  int run(const std::string& command) {
    return std::system(("cd " + folder_.string() + " && " + command + " >out.txt 2>&1").c_str());
  }
  std::string read(const std::string& name) {
    std::stringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  std::filesystem::path folder_;
};

TEST_F(Iasl, DisassemblesEveryTableAndCompilesTheDsdtAgain) {
  for (unsigned cpus : {1u, 4u, 255u}) {
    PlatformDescription platform = everything();
    platform.cpus = cpus;
    for (const auto& [signature, table] : walk(buildAcpi(platform, kBase))) {
      if (signature == "FACS") continue;
      std::ofstream(folder_ / (signature + ".dat"), std::ios::binary)
          .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
      ASSERT_EQ(run("iasl -d " + signature + ".dat"), 0) << read("out.txt");
      std::string source = read(signature + ".dsl");
      EXPECT_EQ(source.find("Incorrect checksum"), std::string::npos) << source;
      EXPECT_EQ(source.find("Invalid"), std::string::npos) << source;
      EXPECT_EQ(read("out.txt").find("rror"), std::string::npos) << read("out.txt");
      ASSERT_EQ(run("iasl -ve " + signature + ".dsl"), 0) << read("out.txt");
    }
  }
}

TEST_F(Iasl, InterruptLinksFollowTheModeOfTheOperatingSystem) {
  PlatformDescription platform = everything();
  platform.pciLinks = PciLinksDescription{.device = 1, .function = 0, .offset = 3, .registers = 0x60, .irqs = 0xc20};
  Area dsdt = walk(buildAcpi(platform, kBase))["DSDT"];
  std::ofstream(folder_ / "l.dat", std::ios::binary)
      .write(reinterpret_cast<const char*>(dsdt.data()), static_cast<std::streamsize>(dsdt.size()));
  ASSERT_EQ(run("iasl -d l.dat"), 0) << read("out.txt");
  std::string source = read("l.dsl");
  for (const char* expected :
       {"Method (\\_PIC, 1", "Device (LNKD)", "EisaId (\"PNP0C0F\")", "OperationRegion (PIRQ, PCI_Config, 0x60",
        "PRQD,   8", "Method (_PRT, 0", "Return (PRTA)", "Return (PRTP)", "{5,10,11}"}) {
    EXPECT_NE(source.find(expected), std::string::npos) << expected << source;
  }
  ASSERT_EQ(run("iasl -ve l.dsl"), 0) << read("out.txt") << source;
}

TEST_F(Iasl, DsdtSaysWhatTheBoardSaid) {
  Area dsdt = walk(buildAcpi(everything(), kBase))["DSDT"];
  std::ofstream(folder_ / "d.dat", std::ios::binary)
      .write(reinterpret_cast<const char*>(dsdt.data()), static_cast<std::streamsize>(dsdt.size()));
  ASSERT_EQ(run("iasl -d d.dat"), 0) << read("out.txt");
  std::string source = read("d.dsl");
  for (const char* expected :
       {"Device (C003)", "Device (PCI0)", "EisaId (\"PNP0A08\")", "Name (_PRT, Package (0x80)", "Device (COM2)",
        "EisaId (\"PNP0501\")", "\"QEMU0001\"", "\"QEMU0002\"", "Name (\\_S5, Package (0x04)",
        "0x0000008000000000, // Range Minimum", "ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")",
        "Memory32Fixed (ReadWrite,", "EisaId (\"PNP0103\")", "EisaId (\"PNP0200\")", "Device (FDC0)",
        "DMA (Compatibility, NotBusMaster, Transfer8, )", "{2}"}) {
    EXPECT_NE(source.find(expected), std::string::npos) << expected;
  }
}

}  // namespace
}  // namespace lodge::firmware
