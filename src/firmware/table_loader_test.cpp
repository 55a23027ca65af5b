// SPDX-License-Identifier: Apache-2.0
#include "firmware/table_loader.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>

#include "base/bytes.h"
#include "firmware/acpi.h"

namespace lodge::firmware {
namespace {

/// What firmware does with the commands: returns the files as they lie at `address`.
std::map<std::string, std::vector<std::uint8_t>> link(const LoaderFiles& files, std::uint64_t rsdp,
                                                      std::uint64_t tables) {
  std::map<std::string, std::vector<std::uint8_t>> out{{"etc/acpi/rsdp", files.rsdp},
                                                       {"etc/acpi/tables", files.tables}};
  std::map<std::string, std::uint64_t> address{{"etc/acpi/rsdp", rsdp}, {"etc/acpi/tables", tables}};
  std::size_t allocated = 0;
  for (std::size_t at = 0; at < files.commands.size(); at += 128) {
    const std::uint8_t* c = files.commands.data() + at;
    std::string name(reinterpret_cast<const char*>(c + 4));
    auto& file = out.at(name);
    switch (loadLe<std::uint32_t>(c)) {
      case 1:
        ++allocated;
        break;
      case 2: {
        std::string source(reinterpret_cast<const char*>(c + 60));
        auto offset = loadLe<std::uint32_t>(c + 116);
        unsigned size = c[120];
        EXPECT_LE(offset + size, file.size());
        std::uint64_t value = 0;
        for (unsigned n = 0; n < size; ++n) value |= std::uint64_t{file[offset + n]} << (8 * n);
        EXPECT_LT(value, out.at(source).size());
        value += address.at(source);
        for (unsigned n = 0; n < size; ++n) file[offset + n] = static_cast<std::uint8_t>(value >> (8 * n));
        break;
      }
      case 3: {
        auto offset = loadLe<std::uint32_t>(c + 60), start = loadLe<std::uint32_t>(c + 64),
             length = loadLe<std::uint32_t>(c + 68);
        EXPECT_LE(start + length, file.size());
        unsigned sum = std::accumulate(file.begin() + start, file.begin() + start + length, 0u);
        file[offset] = static_cast<std::uint8_t>(file[offset] - sum);
        break;
      }
      default:
        ADD_FAILURE() << "command " << loadLe<std::uint32_t>(c);
    }
  }
  EXPECT_EQ(allocated, 2u);
  return out;
}

TEST(TableLoader, GivesTheTablesThatWouldLieThere) {
  PlatformDescription platform;
  platform.ecamBase = 0;
  constexpr std::uint64_t kTables = 0x7ffe0000;
  LoaderFiles files = buildLoaderFiles(platform);
  EXPECT_EQ(files.commands.size() % 128, 0u);
  auto linked = link(files, 0xf5a00, kTables);
  AcpiImage direct = buildAcpiImage(platform, kTables - AcpiImage::kTablesOffset);
  std::vector<std::uint8_t> rsdp(direct.bytes.begin(), direct.bytes.begin() + AcpiImage::kRsdpBytes);
  std::vector<std::uint8_t> tables(direct.bytes.begin() + AcpiImage::kTablesOffset, direct.bytes.end());
  EXPECT_EQ(linked["etc/acpi/rsdp"], rsdp);
  EXPECT_EQ(linked["etc/acpi/tables"], tables);
}

}  // namespace
}  // namespace lodge::firmware
