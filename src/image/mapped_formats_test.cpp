// SPDX-License-Identifier: Apache-2.0
// What every block format must do: keep what is written, in one session and over reopening, alone and over a parent,
// and lose nothing that was flushed when power fails at any point.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/units.h"
#include "image/format.h"
#include "image/image_test_kit.h"
#include "image/recorded_files.h"

namespace lodge::image {

namespace {

struct Kind {
  std::string name, format;
  std::map<std::string, std::string> options;
  bool parent = false;
  std::uint64_t bytes = 9_MiB + 5120;
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) {
  return out << kind.name;
}

std::vector<Kind> kinds() {
  return {
      {"VdiDynamic", "vdi", {}},
      {"VdiFixed", "vdi", {{"subformat", "fixed"}}},
      {"VmdkSparse", "vmdk", {}},
      {"VmdkFlat", "vmdk", {{"subformat", "monolithicFlat"}}},
      {"VmdkSplitSparse", "vmdk", {{"subformat", "twoGbMaxExtentSparse"}}},
      {"VmdkSplitFlat", "vmdk", {{"subformat", "twoGbMaxExtentFlat"}}},
      {"VmdkChild", "vmdk", {}, true},
      {"VmdkZeroedGrainChild", "vmdk", {{"zeroed_grain", "on"}}, true},
      {"VhdDynamic", "vhd", {}},
      {"VhdSmallBlocks", "vhd", {{"block_size", "512K"}}},
      {"VhdFixed", "vhd", {{"subformat", "fixed"}, {"size_rule", "exact"}}},
      {"VhdChild", "vhd", {}, true},
      {"VhdxDynamic", "vhdx", {{"block_size", "1M"}}},
      {"VhdxLargeBlocks", "vhdx", {}},
      {"VhdxFixed", "vhdx", {{"subformat", "fixed"}}},
      {"VhdxLargeSectors", "vhdx", {{"logical_sector_size", "4096"}, {"block_size", "2M"}}, false, 9_MiB + 8192},
      {"VhdxChild", "vhdx", {{"block_size", "2M"}}, true},
  };
}

using Bytes = std::vector<std::byte>;

Status make(FileSpace& files, const Kind& kind, const std::string& path, const std::string& parent = {}) {
  CreateRequest request;
  request.path = path;
  request.bytes = kind.bytes;
  request.options = kind.options;
  request.backingName = parent;
  request.backingFormat = parent.empty() ? "" : kind.format;
  request.files = &files;
  return createImage(*findFormat(kind.format), request);
}

Result<std::unique_ptr<Image>> open(FileSpace& files, const Kind& kind, bool readOnly = false,
                                    const std::string& path = "image") {
  OpenOptions options;
  options.file.readOnly = readOnly;
  return openImage(path, readOnly ? "" : kind.format, options, files);
}

int readAt(Image& image, std::uint64_t offset, Bytes& to) {
  iovec v{to.data(), to.size()};
  return image.read(offset, {&v, 1});
}
int writeAt(Image& image, std::uint64_t offset, const Bytes& from) {
  iovec v{const_cast<std::byte*>(from.data()), from.size()};
  return image.write(offset, {&v, 1});
}

class Formats : public testing::TestWithParam<Kind> {
 protected:
  const Kind& kind() const { return GetParam(); }

  void create(RecordedFiles& files, std::mt19937_64& random, Bytes& mirror) {
    mirror.assign(kind().bytes, std::byte{0});
    std::string parent;
    if (kind().parent) {
      Kind base = kind();
      base.options.erase("subformat");
      ASSERT_TRUE(make(files, base, "parent").ok());
      auto image = openImage("parent", kind().format, {.file = {.readOnly = false}}, files);
      ASSERT_TRUE(image.ok()) << image.error().message();
      for (int i = 0; i < 20; ++i) change(**image, random, mirror, nullptr);
      ASSERT_EQ((*image)->flush(), 0);
      parent = "parent";
    }
    Status made = make(files, kind(), "image", parent);
    ASSERT_TRUE(made.ok()) << made.error().message();
    auto image = open(files, kind());
    ASSERT_TRUE(image.ok()) << image.error().message();
    ASSERT_EQ((*image)->flush(), 0);
  }

  /// A random change to the image and the mirror; `from`, `to`: where.
  void change(Image& image, std::mt19937_64& random, Bytes& mirror, std::pair<std::uint64_t, std::uint64_t>* where) {
    std::uint64_t size = mirror.size();
    std::uint64_t unit = random() % 4 == 0 ? 1 : 512;
    std::uint64_t most = random() % 8 == 0 ? 3_MiB : random() % 2 == 0 ? 200'000 : 8192;
    std::uint64_t offset = random() % size / unit * unit;
    std::uint64_t length = std::min(size - offset, std::max<std::uint64_t>(1, (random() % most) / unit) * unit);
    if (where) *where = {offset, offset + length};
    auto at = mirror.begin() + static_cast<std::ptrdiff_t>(offset);
    switch (random() % 6) {
      case 0:
        ASSERT_EQ(image.writeZeroes(offset, length, random() % 2 == 0), 0);
        std::fill_n(at, length, std::byte{0});
        break;
      default: {
        Bytes data(length);
        auto seed = random();
        for (std::size_t i = 0; i < length; ++i) data[i] = static_cast<std::byte>((seed >> (i % 8 * 8)) + i / 512);
        ASSERT_EQ(writeAt(image, offset, data), 0);
        std::copy(data.begin(), data.end(), at);
      }
    }
  }

  void expectSame(Image& image, const Bytes& mirror) {
    Bytes all(mirror.size());
    ASSERT_EQ(image.size(), mirror.size());
    ASSERT_EQ(readAt(image, 0, all), 0);
    ASSERT_TRUE(all == mirror) << "first difference at "
                               << std::mismatch(all.begin(), all.end(), mirror.begin()).first - all.begin();
    for (std::uint64_t at = 0; at < mirror.size();) {
      BlockStatus status;
      ASSERT_EQ(chainStatus(image, at, mirror.size() - at, status), 0);
      ASSERT_GT(status.length, 0U);
      if (status.kind == BlockStatus::Kind::zero) {
        for (std::uint64_t i = at; i < at + status.length; ++i) ASSERT_EQ(mirror[i], std::byte{0}) << i;
      }
      at += status.length;
    }
  }

  void expectClean(Image& image, bool leaksToo) {
    auto result = image.check(Repair::none);
    ASSERT_TRUE(result.ok()) << result.error().message();
    EXPECT_EQ(result->corruptions, 0U) << (result->messages.empty() ? "" : result->messages[0]);
    if (!leaksToo) return;
    EXPECT_EQ(result->leaks, 0U) << (result->messages.empty() ? "" : result->messages[0]);
  }
};

TEST_P(Formats, KeepsRandomChanges) {
  std::mt19937_64 random(11);
  RecordedFiles files;
  Bytes mirror;
  create(files, random, mirror);
  for (int session = 0; session < 6; ++session) {
    {
      auto image = open(files, kind());
      ASSERT_TRUE(image.ok()) << image.error().message();
      for (int i = 0; i < 25; ++i) change(**image, random, mirror, nullptr);
      expectSame(**image, mirror);
    }
    auto image = open(files, kind(), true);
    ASSERT_TRUE(image.ok()) << image.error().message();
    auto info = (*image)->info();
    ASSERT_TRUE(info.ok());
    EXPECT_EQ(info->format, kind().format);
    expectSame(**image, mirror);
    expectClean(**image, true);
  }
}

TEST_P(Formats, SurvivesPowerLoss) {
  std::mt19937_64 random(5);
  RecordedFiles files;
  Bytes mirror;
  create(files, random, mirror);
  std::size_t begin = files.events().size();
  // At each flush: what the disk had, and how many events there were.
  std::vector<std::pair<std::size_t, Bytes>> flushed = {{begin, mirror}};
  struct Write {
    std::size_t event;
    std::uint64_t from, to;
  };
  std::vector<Write> writes;
  {
    auto image = open(files, kind());
    ASSERT_TRUE(image.ok()) << image.error().message();
    for (int i = 0; i < 60; ++i) {
      std::pair<std::uint64_t, std::uint64_t> where;
      std::size_t before = files.events().size();
      change(**image, random, mirror, &where);
      writes.push_back({before, where.first, where.second});
      if (i % 7 != 6) continue;
      ASSERT_EQ((*image)->flush(), 0);
      flushed.emplace_back(files.events().size(), mirror);
    }
  }
  std::size_t end = files.events().size(), step = std::max<std::size_t>(1, (end - begin) / 25);
  for (std::size_t cut = begin; cut <= end; cut += step) {
    auto left = files.afterPowerLoss(cut, random);
    std::size_t f = flushed.size() - 1;
    while (flushed[f].first > cut) --f;
    auto image = open(*left, kind());
    ASSERT_TRUE(image.ok()) << "cut at " << cut << ": " << image.error().message();
    Bytes all(mirror.size());
    ASSERT_EQ(readAt(**image, 0, all), 0) << "cut at " << cut;
    // Ranges written since that flush may have any state in between; all else is as it was.
    Bytes expected = flushed[f].second;
    for (const Write& write : writes) {
      if (write.event < flushed[f].first || write.event > cut) continue;
      std::uint64_t from = write.from / 512 * 512,
                    to = std::min<std::uint64_t>(mirror.size(), (write.to + 511) / 512 * 512);
      std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(from), to - from,
                  expected.begin() + static_cast<std::ptrdiff_t>(from));
    }
    ASSERT_TRUE(all == expected) << "cut at " << cut << " of " << end << ", difference at "
                                 << std::mismatch(all.begin(), all.end(), expected.begin()).first - all.begin();
    expectClean(**image, false);
    auto repaired = (*image)->check(Repair::leaks);
    ASSERT_TRUE(repaired.ok()) << repaired.error().message();
    expectClean(**image, true);
    Bytes data(300'000, std::byte{0x77});
    ASSERT_EQ(writeAt(**image, 4_MiB + 100, data), 0);
    std::copy(data.begin(), data.end(), all.begin() + 4_MiB + 100);
    image = Result<std::unique_ptr<Image>>(std::unique_ptr<Image>());
    image = open(*left, kind(), true);
    ASSERT_TRUE(image.ok()) << image.error().message();
    expectSame(**image, all);
    expectClean(**image, true);
  }
}

TEST_P(Formats, Resizes) {
  std::mt19937_64 random(3);
  RecordedFiles files;
  Bytes mirror;
  create(files, random, mirror);
  for (std::uint64_t bytes : {20_MiB + 4096, 5_MiB + 8192, 30_MiB}) {
    {
      auto image = open(files, kind());
      ASSERT_TRUE(image.ok()) << image.error().message();
      for (int i = 0; i < 20; ++i) change(**image, random, mirror, nullptr);
      Status resized = (*image)->resize(bytes, Preallocation::off);
      if (!resized) {
        EXPECT_EQ(resized.error().kind(), ErrorKind::unsupported) << resized.error().message();
        expectSame(**image, mirror);
        continue;
      }
      mirror.resize(bytes);
      expectSame(**image, mirror);
      for (int i = 0; i < 20; ++i) change(**image, random, mirror, nullptr);
    }
    auto image = open(files, kind(), true);
    ASSERT_TRUE(image.ok()) << image.error().message();
    expectSame(**image, mirror);
    expectClean(**image, false);
  }
}

/// The table of a fresh VDI has room for 256 GiB: more of it takes the first blocks' place.
TEST(Vdi, GrowsBeyondItsTablesRoom) {
  ImageKit kit;
  kit.create("vdi", "a.vdi", 1_GiB);
  std::vector<std::uint8_t> some(3_MiB);
  for (std::size_t i = 0; i < some.size(); ++i) some[i] = static_cast<std::uint8_t>(i >> 8 ^ i);
  for (std::uint64_t growth : {700_GiB, 3000_GiB}) {
    auto image = kit.open("a.vdi");
    kit.write(*image, 100'000, some);
    kit.write(*image, 1_GiB - some.size(), some);
    std::uint64_t last = image->size() - 512;
    kit.write(*image, last, std::vector<std::uint8_t>(512, 9));
    Status grown = image->resize(growth, Preallocation::off);
    ASSERT_TRUE(grown) << grown.error().message();
    kit.write(*image, growth - 512, std::vector<std::uint8_t>(512, 7));
    for (bool again : {false, true}) {
      if (again) image.reset();
      if (again) image = kit.open("a.vdi");
      EXPECT_EQ(image->size(), growth);
      EXPECT_EQ(kit.read(*image, 100'000, some.size()), some);
      EXPECT_EQ(kit.read(*image, 1_GiB - some.size(), some.size() - 512),
                std::vector<std::uint8_t>(some.begin(), some.end() - 512));
      EXPECT_EQ(kit.read(*image, last, 512), std::vector<std::uint8_t>(512, 9));
      EXPECT_EQ(kit.read(*image, last + 512, 512), std::vector<std::uint8_t>(512, 0));
      EXPECT_EQ(kit.read(*image, growth - 512, 512), std::vector<std::uint8_t>(512, 7));
    }
    kit.expectClean(*image, false);
  }
}

INSTANTIATE_TEST_SUITE_P(Image, Formats, testing::ValuesIn(kinds()), [](const auto& test) { return test.param.name; });

}  // namespace

}  // namespace lodge::image
