// SPDX-License-Identifier: Apache-2.0
#include "base/units.h"
#include "image/image_test_kit.h"

namespace lodge::image {
namespace {

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

struct Bitmaps : testing::Test, ImageKit {
  std::unique_ptr<Image> image;

  void begin(std::uint64_t bytes, const Options& options = {}) {
    create("qcow2", "a", bytes, options);
    image = open("a");
    ASSERT_NE(image, nullptr);
  }
  void reopen() {
    image.reset();
    image = open("a");
    ASSERT_NE(image, nullptr);
  }
  BitmapStore& store() const { return *image->bitmaps(); }
  Ranges dirty(const std::string& name) const {
    Ranges ranges;
    Status told = store().forEachDirty(name, [&](std::uint64_t offset, std::uint64_t length) {
      ranges.emplace_back(offset, length);
      return true;
    });
    EXPECT_TRUE(told) << told.error().message();
    return ranges;
  }
  void good(Status status) { EXPECT_TRUE(status) << status.error().message(); }
};

TEST_F(Bitmaps, recordWhatChanges) {
  begin(64_MiB);
  good(store().add("one", 0, true));
  good(store().add("fine", 4096, true));
  good(store().add("off", 1_MiB, false));
  EXPECT_FALSE(store().add("one", 0, true));
  EXPECT_FALSE(store().add("", 0, true));
  EXPECT_FALSE(store().add("x", 3000, true));
  EXPECT_FALSE(store().add("x", 256, true));
  ASSERT_EQ(write(*image, 5_MiB + 5000, std::vector<std::uint8_t>(100, 1)), 0);
  reopen();
  EXPECT_EQ(dirty("one"), (Ranges{{5_MiB, 64_KiB}}));
  EXPECT_EQ(dirty("fine"), (Ranges{{5_MiB + 4096, 4096}}));
  EXPECT_EQ(dirty("off"), Ranges());
  auto all = store().list();
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ((*all)[0].granularity, 64_KiB);
  EXPECT_TRUE((*all)[0].recording && !(*all)[2].recording && !(*all)[0].inUse);
  good(store().merge("off", store(), "one"));
  EXPECT_EQ(dirty("off"), (Ranges{{5_MiB, 1_MiB}}));
  good(store().setRecording("fine", false));
  ASSERT_EQ(write(*image, 0, {1}), 0);
  EXPECT_EQ(dirty("fine").size(), 1u);
  EXPECT_EQ(dirty("one").size(), 2u);
  good(store().clear("one"));
  EXPECT_EQ(dirty("one"), Ranges());
  good(store().remove("fine"));
  EXPECT_FALSE(store().remove("fine"));
  EXPECT_FALSE(store().clear("fine"));
  reopen();
  expectClean(*image);
  good(store().remove("one"));
  good(store().remove("off"));
  EXPECT_TRUE(store().list()->empty());
  reopen();
  expectClean(*image);
}

TEST_F(Bitmaps, mergeFromAnotherImage) {
  begin(16_MiB);
  good(store().add("here", 0, false));
  create("qcow2", "b", 16_MiB, {{"cluster_size", "4096"}});
  auto other = open("b");
  good(other->bitmaps()->add("there", 512, true));
  ASSERT_EQ(write(*other, 3_MiB, {1}), 0);
  good(store().merge("here", *other->bitmaps(), "there"));
  EXPECT_EQ(dirty("here"), (Ranges{{3_MiB, 64_KiB}}));
  EXPECT_FALSE(store().merge("here", *other->bitmaps(), "nothing"));
  create("qcow2", "c", 8_MiB);
  auto shorter = open("c");
  good(shorter->bitmaps()->add("there", 0, true));
  EXPECT_FALSE(store().merge("here", *shorter->bitmaps(), "there"));
}

TEST_F(Bitmaps, followTheDisksSize) {
  // 512-byte clusters: a page has 4096 bits of 512 bytes, 2 MiB.
  begin(5_MiB, {{"cluster_size", "512"}});
  good(store().add("one", 512, true));
  good(store().add("off", 512, false));
  ASSERT_EQ(write(*image, 4_MiB, std::vector<std::uint8_t>(1_MiB, 1)), 0);
  ASSERT_EQ(write(*image, 1_MiB, {1}), 0);
  good(image->resize(9_MiB, Preallocation::off));
  EXPECT_EQ(dirty("one"), (Ranges{{1_MiB, 512}, {4_MiB, 1_MiB}}));
  ASSERT_EQ(write(*image, 9_MiB - 512, {1}), 0);
  good(image->resize(4_MiB + 512, Preallocation::off));
  EXPECT_EQ(dirty("one"), (Ranges{{1_MiB, 512}, {4_MiB, 512}}));
  good(image->resize(6_MiB, Preallocation::off));
  EXPECT_EQ(dirty("one"), (Ranges{{1_MiB, 512}, {4_MiB, 512}}));
  EXPECT_EQ(dirty("off"), Ranges());
  reopen();
  ASSERT_EQ(write(*image, 5_MiB, {1}), 0);
  EXPECT_EQ(dirty("one"), (Ranges{{1_MiB, 512}, {4_MiB, 512}, {5_MiB, 512}}));
  expectClean(*image);
  reopen();
  expectClean(*image);
}

TEST_F(Bitmaps, snapshotsOfAnotherSizeMakeAllDirty) {
  begin(4_MiB);
  good(image->createSnapshot("s"));
  good(store().add("one", 0, true));
  good(image->resize(8_MiB, Preallocation::off));
  good(image->applySnapshot("s"));
  EXPECT_EQ(dirty("one"), (Ranges{{0, 4_MiB}}));
  reopen();
  expectClean(*image);
}

TEST_F(Bitmaps, thoseOfAKilledWriterAreToldAndRemoved) {
  begin(4_MiB);
  good(store().add("one", 0, true));
  ASSERT_EQ(write(*image, 0, {1}), 0);
  ASSERT_EQ(image->flush(), 0);
  auto copy = files->open("a", {});
  ASSERT_TRUE(copy);
  std::vector<std::byte> bytes((*copy)->size());
  ASSERT_EQ((*copy)->read(0, bytes.data(), bytes.size()), 0);
  auto other = files->create("b", true);
  ASSERT_TRUE(other);
  ASSERT_EQ((*other)->write(0, bytes.data(), bytes.size()), 0);
  auto killed = open("b");
  ASSERT_NE(killed, nullptr);
  EXPECT_TRUE((*killed->bitmaps()->list())[0].inUse);
  EXPECT_FALSE(killed->bitmaps()->clear("one"));
  EXPECT_FALSE(killed->bitmaps()->forEachDirty("one", [](std::uint64_t, std::uint64_t) { return true; }));
  good(killed->resize(8_MiB, Preallocation::off));
  good(killed->bitmaps()->remove("one"));
  killed = open("b");
  expectClean(*killed);
}

TEST_F(Bitmaps, version2HasNone) {
  begin(1_MiB, {{"compat", "0.10"}});
  EXPECT_FALSE(store().add("one", 0, true));
}

}  // namespace
}  // namespace lodge::image
