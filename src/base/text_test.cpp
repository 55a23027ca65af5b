// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

TEST(Text, QuotesWhatATerminalCouldActOn) {
  EXPECT_EQ(inQuotes("a b"), "'a b'");
  EXPECT_EQ(inQuotes("\x1b[2J\n\xc3\xa9"), "'\\x1b[2J\\x0a\\xc3\\xa9'");
}

TEST(Text, SplitsFieldsWithDoubledSeparators) {
  EXPECT_EQ(splitFields("a,b", ','), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(splitFields("a,,b,c", ','), (std::vector<std::string>{"a,b", "c"}));
  EXPECT_EQ(splitFields("", ','), (std::vector<std::string>{""}));
  EXPECT_EQ(splitFields("a,", ','), (std::vector<std::string>{"a", ""}));
}

TEST(Text, Splits) {
  EXPECT_EQ(split("a::b", ':'), (std::vector<std::string_view>{"a", "", "b"}));
  EXPECT_EQ(split("", ':'), (std::vector<std::string_view>{""}));
}

TEST(Text, ParsesNumbers) {
  EXPECT_EQ(parseNumber("0"), 0u);
  EXPECT_EQ(parseNumber("0xF4"), 0xf4u);
  EXPECT_EQ(parseNumber("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(parseNumber("65535", 65535), 65535u);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "1x", "0x", "18446744073709551616", "x"}) {
    EXPECT_EQ(parseNumber(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(parseNumber("65536", 65535), std::nullopt);
}

TEST(Text, ParsesSizes) {
  EXPECT_EQ(*parseSize("512M"), 512_MiB);
  EXPECT_EQ(*parseSize("1G"), 1_GiB);
  EXPECT_EQ(*parseSize("1.5G"), 1536_MiB);
  EXPECT_EQ(*parseSize("64k"), 64_KiB);
  EXPECT_EQ(*parseSize("2TiB"), 2_TiB);
  EXPECT_EQ(*parseSize("0G"), 0u);
  EXPECT_EQ(*parseSize("0.000000001K"), 0u);
  EXPECT_EQ(*parseSize("16777215.999T"), (16777215ull << 40) + ((999ull << 40) / 1000));
}

TEST(Text, RefusesBadSizes) {
  for (const char* bad : {"", "G", ".G", "1.G", ".5G", "1..5G", "1MB", "1 G", "-1G", "16777216T",
                          "99999999999999999999K", "1.0123456789G", "1GG", "1Q", "0x10M"}) {
    auto size = parseSize(bad);
    ASSERT_FALSE(size) << bad;
    EXPECT_EQ(size.error().kind(), ErrorKind::invalidArgument);
    EXPECT_FALSE(size.error().hint().empty());
  }
  EXPECT_EQ(parseSize("512").error().message(), "'512' has no unit");
  EXPECT_EQ(parseSize("512").error().hint(), "write 512M for mebibytes or 512G for gibibytes");
}

TEST(Text, FormatsSizes) {
  EXPECT_EQ(formatSize(0), "0 B");
  EXPECT_EQ(formatSize(1_GiB), "1 GiB");
  EXPECT_EQ(formatSize(1536_MiB), "1.50 GiB");
  EXPECT_EQ(formatSize(10_MiB + 1), "10.0 MiB");
  EXPECT_EQ(formatSize(UINT64_MAX), "16 EiB");
}

TEST(Text, FormatsDurations) {
  EXPECT_EQ(formatDuration(59), "59 s");
  EXPECT_EQ(formatDuration(185), "3 min 5 s");
  EXPECT_EQ(formatDuration(7800), "2 h 10 min");
  EXPECT_EQ(formatDuration(3 * 86400 + 4 * 3600 + 5), "3 d 4 h");
}

TEST(Text, FindsTheClosest) {
  std::vector<std::string_view> verbs = {"run", "stop", "stats", "console"};
  EXPECT_EQ(closest("rum", verbs), "run");
  EXPECT_EQ(closest("consol", verbs), "console");
  EXPECT_EQ(closest("zzzz", verbs), "");
  EXPECT_EQ(closest("", verbs), "");
  EXPECT_EQ(closest(std::string(100000, 'a'), verbs), "");
}

}  // namespace
}  // namespace lodge
