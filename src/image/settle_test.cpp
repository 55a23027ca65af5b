// SPDX-License-Identifier: Apache-2.0
// Store::settle(): closing an image writes nothing after it, and what is written later is as safe as before.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/units.h"
#include "image/image_test_kit.h"
#include "image/recorded_files.h"

namespace lodge::image {
namespace {

constexpr std::uint64_t kBytes = 6_MiB + 8192;

struct Kind {
  std::string name, format;
  std::map<std::string, std::string> options{};
  bool backing = false, bitmap = false;
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) {
  return out << kind.name;
}

struct Settle : testing::TestWithParam<Kind> {
  RecordedFiles files;
  std::mt19937_64 random{3};
  std::vector<std::byte> mirror = std::vector<std::byte>(kBytes);
  std::unique_ptr<Image> image;

  std::unique_ptr<Image> open(RecordedFiles& space, bool readOnly = false, const std::string& path = "image") {
    OpenOptions options;
    options.file.readOnly = readOnly;
    auto opened = openImage(path, GetParam().format, options, space);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message());
    return opened ? std::move(*opened) : nullptr;
  }
  void create(const std::string& path, const std::string& backing) {
    CreateRequest request{.path = path, .bytes = kBytes, .options = GetParam().options, .files = &files};
    if (!backing.empty()) request.backingName = backing, request.backingFormat = GetParam().format;
    Status made = createImage(*findFormat(GetParam().format), request);
    ASSERT_TRUE(made) << made.error().message();
  }
  void SetUp() override {
    if (GetParam().backing) {
      create("behind", {});
      image = open(files, false, "behind");
      ASSERT_TRUE(image);
      work(20, false);
      image.reset();
    }
    create("image", GetParam().backing ? "behind" : "");
    image = open(files);
    ASSERT_TRUE(image);
    if (!GetParam().bitmap) return;
    ASSERT_TRUE(image->bitmaps()->add("changes", 64_KiB, true));
    image.reset();
    image = open(files);
    ASSERT_TRUE(image);
  }
  /// Random writes and zeroes, and discards; a flush now and then.
  void work(int steps, bool discards = true) {
    for (int i = 0; i < steps; ++i) {
      std::uint64_t offset = random() % kBytes / 512 * 512;
      std::uint64_t length = std::min(kBytes - offset, (1 + random() % 600) * 512);
      auto at = mirror.begin() + static_cast<std::ptrdiff_t>(offset);
      std::vector<std::byte> bytes(length, static_cast<std::byte>(random()));
      iovec v{bytes.data(), length};
      switch (random() % 8) {
        case 0:
          ASSERT_EQ(image->writeZeroes(offset, length, random() % 2 == 0), 0);
          std::fill_n(at, length, std::byte{0});
          break;
        case 1:
          ASSERT_EQ(discards ? image->discard(offset, length) : 0, 0);
          // Either content may be there; from now on it is one.
          ASSERT_EQ(image->read(offset, {&v, 1}), 0);
          std::copy(bytes.begin(), bytes.end(), at);
          break;
        case 2:
          ASSERT_EQ(image->flush(), 0);
          break;
        default:
          ASSERT_EQ(image->write(offset, {&v, 1}), 0);
          std::copy(bytes.begin(), bytes.end(), at);
      }
    }
  }
  /// How often a file was changed.
  std::size_t changes() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(files.events(), [](const auto& e) { return e.kind != RecordedFiles::Kind::flush; }));
  }
  void expectMirror(Image& other) {
    std::vector<std::byte> all(kBytes);
    iovec v{all.data(), all.size()};
    ASSERT_EQ(other.read(0, {&v, 1}), 0);
    ASSERT_TRUE(all == mirror) << "first difference at "
                               << std::mismatch(all.begin(), all.end(), mirror.begin()).first - all.begin();
  }
  static void expectClean(Image& other) {
    auto info = other.info();
    ASSERT_TRUE(info);
    EXPECT_FALSE(info->dirty);
    if (auto result = other.check(Repair::none); result) {
      EXPECT_EQ(result->corruptions + result->leaks + result->checkErrors, 0U);
    } else {
      EXPECT_EQ(result.error().kind(), ErrorKind::unsupported) << result.error().message();
    }
  }
  static bool bitmapInUse(Image& other) {
    auto list = other.bitmaps()->list();
    return !list || list->size() != 1 || list->front().inUse;
  }
};

TEST_P(Settle, closingWritesNothingMore) {
  for (int round = 0; round < 4; ++round) {
    work(30);
    ASSERT_EQ(image->settle(), 0);
    std::size_t settled = changes();
    {
      auto other = open(files, true);
      ASSERT_TRUE(other);
      expectClean(*other);
      expectMirror(*other);
      if (GetParam().bitmap) EXPECT_FALSE(bitmapInUse(*other));
    }
    expectMirror(*image);
    ASSERT_EQ(image->settle(), 0);
    if (round % 2 == 0) {
      image.reset();
      EXPECT_EQ(changes(), settled);
      image = open(files);
      ASSERT_TRUE(image);
    }
    EXPECT_EQ(changes(), settled);
  }
}

TEST_P(Settle, whatIsWrittenLaterOutlivesAKill) {
  work(30);
  ASSERT_EQ(image->settle(), 0);
  work(30);
  ASSERT_EQ(image->flush(), 0);
  std::mt19937_64 all(1);
  // Everything is before the last flush: the files as they are now, as if the writer had been killed.
  auto left = files.afterPowerLoss(files.events().size(), all);
  if (GetParam().bitmap) EXPECT_TRUE(bitmapInUse(*open(*left, true)));
  auto other = open(*left);
  ASSERT_TRUE(other);
  auto result = other->check(Repair::none);
  if (result) EXPECT_EQ(result->corruptions, 0U);
  expectMirror(*other);
}

TEST_P(Settle, leavesWhatIsOnlyReadAlone) {
  image.reset();
  std::size_t before = changes();
  image = open(files, true);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->settle(), 0);
  image.reset();
  EXPECT_EQ(changes(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Settle,
    testing::Values(Kind{"Raw", "raw"}, Kind{"Qcow2", "qcow2"}, Kind{"Qcow2Lazy", "qcow2", {{"lazy_refcounts", "on"}}},
                    Kind{"Qcow2Bitmap", "qcow2", {}, false, true},
                    Kind{"Qcow2All",
                         "qcow2",
                         {{"lazy_refcounts", "on"}, {"extended_l2", "on"}, {"cluster_size", "16K"}},
                         true,
                         true},
                    Kind{"Qcow2DataFile", "qcow2", {{"data_file", "data"}}}, Kind{"Vdi", "vdi"}, Kind{"Vmdk", "vmdk"},
                    Kind{"VmdkSplit", "vmdk", {{"subformat", "twoGbMaxExtentSparse"}}},
                    Kind{"VmdkChild", "vmdk", {}, true}, Kind{"Vhd", "vhd"}, Kind{"VhdChild", "vhd", {}, true},
                    Kind{"Vhdx", "vhdx"}, Kind{"VhdxSmallBlocks", "vhdx", {{"block_size", "1M"}}},
                    Kind{"VhdxChild", "vhdx", {{"block_size", "2M"}}, true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lodge::image
