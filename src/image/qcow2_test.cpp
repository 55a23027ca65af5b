// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/units.h"
#include "image/image_test_kit.h"

namespace lodge::image {
namespace {

using Bytes = std::vector<std::uint8_t>;

struct Geometry {
  const char* name;
  ImageKit::Options options;
  std::uint64_t bytes = 8_MiB;
  bool snapshots = true;
};

struct Qcow2Random : testing::TestWithParam<Geometry>, ImageKit {
  std::mt19937_64 random{42};
  Bytes model;
  std::unique_ptr<Image> image;
  std::map<std::string, Bytes> kept;
  int nextSnapshot = 0;

  std::uint64_t below(std::uint64_t n) { return random() % n; }
  void step() {
    std::uint64_t at = below(model.size()), length = 1 + below(std::min<std::uint64_t>(model.size() - at, 300000));
    switch (below(20)) {
      case 0:
      case 1:
        if (below(2) != 0)
          at = alignDown(at, 65536), length = std::min<std::uint64_t>(alignUp(length, 65536), model.size() - at);
        ASSERT_EQ(image->writeZeroes(at, length, below(2) != 0), 0);
        std::fill_n(model.begin() + static_cast<long>(at), length, 0);
        break;
      case 2: {
        ASSERT_EQ(image->discard(at, length), 0);
        Bytes now = read(*image, at, length);
        for (std::uint64_t i = 0; i < length; ++i) ASSERT_TRUE(now[i] == 0 || now[i] == model[at + i]);
        std::copy(now.begin(), now.end(), model.begin() + static_cast<long>(at));
        break;
      }
      case 3:
        ASSERT_EQ(image->flush(), 0);
        break;
      case 4:
        if (below(4) != 0) break;
        image.reset();
        image = open("a.qcow2");
        break;
      case 5:
        if (below(4) == 0) snapshot();
        break;
      case 6:
      case 7:
      case 8:
        ASSERT_EQ(read(*image, at, length),
                  Bytes(model.begin() + static_cast<long>(at), model.begin() + static_cast<long>(at + length)));
        break;
      default: {
        if (below(2) != 0) length = std::min<std::uint64_t>(length, 5000);
        Bytes bytes(length);
        for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
        ASSERT_EQ(write(*image, at, bytes), 0);
        std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<long>(at));
      }
    }
  }
  void snapshot() {
    if (!GetParam().snapshots) return;
    if (kept.size() < 3) {
      std::string name = "s" + std::to_string(nextSnapshot++);
      Status made = image->createSnapshot(name);
      ASSERT_TRUE(made) << made.error().message();
      kept[name] = model;
    } else {
      auto it = std::next(kept.begin(), static_cast<long>(below(kept.size())));
      if (below(2) != 0) {
        Status applied = image->applySnapshot(it->first);
        ASSERT_TRUE(applied) << applied.error().message();
        model = it->second;
      } else {
        Status gone = image->deleteSnapshot(it->first);
        ASSERT_TRUE(gone) << gone.error().message();
        kept.erase(it);
      }
    }
    expectClean(*image);
  }
};

TEST_P(Qcow2Random, mirrorsAByteArray) {
  std::uint64_t bytes = GetParam().bytes;
  for (bool backed : {false, true}) {
    model.assign(bytes, 0);
    kept.clear();
    if (backed) {
      create("raw", "base.raw", bytes / 2);
      auto base = open("base.raw");
      for (std::uint64_t i = 0; i < bytes / 2; ++i) model[i] = static_cast<std::uint8_t>(i >> 9 | 1);
      write(*base, 0, Bytes(model.begin(), model.begin() + static_cast<long>(bytes / 2)));
    }
    create("qcow2", "a.qcow2", bytes, GetParam().options, backed ? "base.raw" : "", backed ? "raw" : "");
    image = open("a.qcow2");
    ASSERT_TRUE(image);
    for (int i = 0; i < 400; ++i) {
      step();
      if (HasFatalFailure()) return;
    }
    EXPECT_EQ(read(*image, 0, bytes), model);
    image.reset();
    image = open("a.qcow2");
    EXPECT_EQ(read(*image, 0, bytes), model);
    expectClean(*image);
    for (auto& [name, content] : kept) EXPECT_EQ(read(*open("a.qcow2", true, name), 0, bytes), content);
    image.reset();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Geometries, Qcow2Random,
    testing::Values(Geometry{"usual", {}}, Geometry{"v2", {{"compat", "0.10"}}},
                    Geometry{"c512", {{"cluster_size", "512"}}, 2_MiB},
                    Geometry{"c512r64", {{"cluster_size", "512"}, {"refcount_bits", "64"}}, 2_MiB},
                    Geometry{"c4Kr1", {{"cluster_size", "4K"}, {"refcount_bits", "1"}}, 8_MiB, false},
                    Geometry{"c4Kr2", {{"cluster_size", "4K"}, {"refcount_bits", "2"}}, 8_MiB, false},
                    Geometry{"c1Kr4", {{"cluster_size", "1K"}, {"refcount_bits", "4"}}, 4_MiB},
                    Geometry{"c8Kr8", {{"cluster_size", "8K"}, {"refcount_bits", "8"}}},
                    Geometry{"c2Mr32", {{"cluster_size", "2M"}, {"refcount_bits", "32"}}, 32_MiB},
                    Geometry{"subclusters", {{"extended_l2", "on"}}},
                    Geometry{"subclusters16K", {{"extended_l2", "on"}, {"cluster_size", "16K"}}}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(Qcow2, everyCompressionTypeComesBack) {
  for (const char* type : {"zlib", "zstd"}) {
    ImageKit kit;
    kit.create("qcow2", "a", 4_MiB, {{"compression_type", type}});
    auto image = kit.open("a");
    auto writer = image->streamWriter();
    ASSERT_TRUE(writer);
    std::mt19937_64 random(3);
    Bytes all(4_MiB);
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] = i / 65536 % 3 == 0 ? static_cast<std::uint8_t>(random()) : static_cast<std::uint8_t>(i * i >> 8);
    std::vector<std::byte> encoded;
    for (std::uint64_t at = 0; at < all.size(); at += 65536) {
      std::span<const std::byte> unit(reinterpret_cast<std::byte*>(all.data()) + at, 65536);
      ASSERT_EQ((*writer)->encode(unit, encoded), 0);
      ASSERT_EQ((*writer)->put(at, unit, encoded), 0);
    }
    ASSERT_EQ((*writer)->finish(), 0);
    writer = Error(ErrorKind::internal, "");
    image.reset();
    image = kit.open("a");
    EXPECT_EQ(kit.read(*image, 0, all.size()), all);
    EXPECT_EQ(kit.read(*image, 70001, 100), Bytes(all.begin() + 70001, all.begin() + 70101));
    kit.expectClean(*image);
    EXPECT_GT(image->check(Repair::none)->compressedClusters, 40u);
    std::uint64_t last = 0, most = 0;
    image->onProgress([&](std::uint64_t done, std::uint64_t total) { return last = done, most = total, true; });
    EXPECT_TRUE(image->check(Repair::none).ok());
    EXPECT_EQ(last, most);
    EXPECT_GE(most, all.size());
    image->onProgress([](std::uint64_t, std::uint64_t) { return false; });
    auto interrupted = image->check(Repair::none);
    ASSERT_FALSE(interrupted.ok());
    EXPECT_EQ(interrupted.error().kind(), ErrorKind::interrupted);
    image->onProgress({});
    // A write into a compressed cluster brings the rest of it along.
    kit.write(*image, 70000, Bytes(10, 7));
    std::fill_n(all.begin() + 70000, 10, 7);
    EXPECT_EQ(kit.read(*image, 0, all.size()), all);
    image.reset();
    kit.expectClean(*kit.open("a"));
  }
}

TEST(Qcow2, resizes) {
  ImageKit kit;
  kit.create("qcow2", "a", 1_MiB, {{"cluster_size", "512"}});
  auto image = kit.open("a");
  kit.write(*image, 0, Bytes(1_MiB, 5));
  ASSERT_TRUE(image->resize(64_MiB, Preallocation::off));
  EXPECT_EQ(image->size(), 64_MiB);
  EXPECT_EQ(kit.read(*image, 1_MiB, 5000), Bytes(5000, 0));
  kit.write(*image, 64_MiB - 100, Bytes(100, 6));
  kit.expectClean(*image);
  Status small = image->resize(512_KiB + 512, Preallocation::off);
  ASSERT_TRUE(small) << small.error().message();
  ASSERT_TRUE(image->resize(2_MiB, Preallocation::off));
  EXPECT_EQ(kit.read(*image, 512_KiB, 1024), [] {
    Bytes b(1024, 0);
    std::fill_n(b.begin(), 512, 5);
    return b;
  }());
  image.reset();
  kit.expectClean(*kit.open("a"));
}

TEST(Qcow2, takesRowsLongerThanABlockOfRefcountsCounts) {
  ImageKit kit;
  kit.create("qcow2", "a", 1_MiB, {{"cluster_size", "512"}});
  auto image = kit.open("a");
  kit.write(*image, 0, Bytes(1_MiB, 5));
  ASSERT_TRUE(image->resize(2048_MiB, Preallocation::off));  // an L1 table of 1024 clusters; 256 are counted by a block
  kit.write(*image, 2048_MiB - 100, Bytes(100, 6));
  ASSERT_TRUE(image->createSnapshot("s"));
  kit.write(*image, 1024_MiB, Bytes(100, 7));
  image.reset();
  image = kit.open("a");
  EXPECT_EQ(kit.read(*image, 2048_MiB - 100, 100), Bytes(100, 6));
  EXPECT_EQ(kit.read(*image, 0, 1_MiB), Bytes(1_MiB, 5));
  kit.expectClean(*image);
}

TEST(Qcow2, preallocates) {
  for (const char* how : {"metadata", "falloc", "full"}) {
    ImageKit kit;
    kit.create("qcow2", "a", 100_MiB, {{"preallocation", how}});
    auto image = kit.open("a");
    auto result = image->check(Repair::none);
    EXPECT_EQ(result->allocatedClusters, 1600u);
    kit.expectClean(*image);
    EXPECT_EQ(kit.read(*image, 50_MiB, 4096), Bytes(4096, 0));
  }
}

TEST(Qcow2, aRawDataFileThatIsNotThereIsNotAsked) {
  ImageKit kit;
  kit.create("qcow2", "a", 4_MiB);
  {
    auto file = kit.files->open("a", {});
    ASSERT_TRUE(file);
    constexpr std::uint64_t kAutoclearEnd = 95;
    std::uint8_t rawData = 2;
    iovec v{&rawData, 1};
    ASSERT_EQ((*file)->writev(kAutoclearEnd, {&v, 1}), 0);
  }
  auto image = kit.open("a");
  ASSERT_NE(image, nullptr);
  ASSERT_EQ(ImageKit::write(*image, 1_MiB, std::vector<std::uint8_t>(128_KiB, 7)), 0);
  EXPECT_EQ(image->discard(1_MiB, 64_KiB), 0);
  EXPECT_EQ(image->writeZeroes(1_MiB + 64_KiB, 64_KiB, true), 0);
  EXPECT_EQ(ImageKit::read(*image, 1_MiB, 128_KiB), std::vector<std::uint8_t>(128_KiB, 0));
}

TEST(Qcow2, repairsRefcounts) {
  ImageKit kit;
  kit.create("qcow2", "a", 8_MiB);
  kit.write(*kit.open("a"), 0, Bytes(8_MiB, 9));
  auto file = *kit.files->open("a", {.readOnly = false});
  Bytes block(65536);
  file->read(2 * 65536, block.data(), block.size());
  for (int i = 20; i < 60; ++i) block[static_cast<std::size_t>(i)] = i % 2 == 0 ? 0 : static_cast<std::uint8_t>(i % 3);
  file->write(2 * 65536, block.data(), block.size());
  auto image = kit.open("a");
  EXPECT_GT(image->check(Repair::none)->corruptions, 0u);
  auto repaired = image->check(Repair::all);
  ASSERT_TRUE(repaired);
  EXPECT_EQ(repaired->corruptions, 0u);
  kit.expectClean(*image);
  EXPECT_EQ(kit.read(*image, 0, 8_MiB), Bytes(8_MiB, 9));
}

TEST(Qcow2, backingChainsAreWatched) {
  ImageKit kit;
  kit.create("qcow2", "a", 1_MiB, {}, "b", "qcow2");
  kit.create("qcow2", "b", 1_MiB, {}, "a", "qcow2");
  auto loop = openImage("a", "", {}, *kit.files);
  ASSERT_FALSE(loop);
  EXPECT_EQ(loop.error().kind(), ErrorKind::corrupt);
  EXPECT_NE(loop.error().message().find("comes back to 'a'"), std::string::npos) << loop.error().message();
}

}  // namespace
}  // namespace lodge::image
