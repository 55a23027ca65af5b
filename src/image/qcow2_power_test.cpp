// SPDX-License-Identifier: Apache-2.0
// Power loss: what was written is recorded, cut at each point, and reordered between flushes as disks do.
#include <algorithm>

#include "base/units.h"
#include "image/image_test_kit.h"
#include "image/recorded_files.h"

namespace lodge::image {
namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::uint64_t kSector = 512;

/// What a sector held, from when on; and which of that a completed flush covers.
struct Version {
  std::size_t event;
  std::uint32_t value;
};

/// Each write fills sectors with a number of its own, so that a sector's content tells which write it comes from.
/// A number for longer runs by hand.
int fromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): no other thread yet
  return text ? std::atoi(text) : otherwise;
}

struct PowerLoss : testing::TestWithParam<ImageKit::Options> {
  static constexpr std::uint64_t kBytes = 512_KiB;
  RecordedFiles files;
  std::mt19937_64 random{static_cast<std::uint64_t>(fromEnvironment("LODGE_POWER_LOSS_SEED", 11))};
  std::unique_ptr<Image> image;
  std::vector<std::vector<Version>> history{kBytes / kSector};
  std::vector<std::pair<std::size_t, std::size_t>> flushes;  // event after it, events covered
  std::uint32_t next = 0;

  std::unique_ptr<Image> open(RecordedFiles& space, bool readOnly = false) {
    OpenOptions options;
    options.file.readOnly = readOnly;
    auto opened = openImage("a", "qcow2", options, space);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message());
    return opened ? std::move(*opened) : nullptr;
  }
  void note(std::uint64_t offset, std::uint64_t length, std::uint32_t value) {
    for (std::uint64_t s = offset / kSector; s < (offset + length) / kSector; ++s)
      history[s].push_back({files.events().size(), value});
  }
  void write(std::uint64_t offset, std::uint64_t length) {
    std::uint32_t value = ++next;
    note(offset, length, value);
    std::vector<std::uint32_t> words(length / 4, value);
    iovec v{words.data(), length};
    ASSERT_EQ(image->write(offset, {&v, 1}), 0);
  }
  void flush() {
    std::size_t covered = files.events().size();
    ASSERT_EQ(image->flush(), 0);
    flushes.emplace_back(files.events().size(), covered);
  }
  void step(int number) {
    std::uint64_t offset = random() % (kBytes / kSector) * kSector;
    std::uint64_t length = std::min<std::uint64_t>((1 + random() % 40) * kSector, kBytes - offset);
    switch (random() % 12) {
      case 0:
        note(offset, length, 0);
        ASSERT_EQ(image->writeZeroes(offset, length, true), 0);
        break;
      case 1:
      case 2:
        flush();
        break;
      case 3:
        if (number % 5 == 0) {
          ASSERT_TRUE(image->createSnapshot("s" + std::to_string(number)));
        } else if (auto about = image->info(); about && about->snapshots.size() > 1) {
          ASSERT_TRUE(image->deleteSnapshot(about->snapshots[0].id));
        }
        break;
      default:
        write(offset, length);
    }
  }
  /// Whether the sector may hold this after a cut before event `cut`.
  bool allowed(std::uint64_t sector, std::uint32_t value, std::size_t cut) const {
    std::size_t covered = 0;
    for (auto [end, from] : flushes) {
      if (end <= cut) covered = from;
    }
    std::uint32_t stable = 0;
    for (const Version& version : history[sector]) {
      if (version.event < covered)
        stable = version.value;
      else if (version.event <= cut && version.value == value)
        return true;
    }
    return value == stable;
  }
  void examine(std::size_t cut) {
    auto left = files.afterPowerLoss(cut, random);
    auto after = open(*left);
    ASSERT_TRUE(after) << "cut " << cut;
    auto result = after->check(Repair::leaks);
    ASSERT_TRUE(result) << result.error().message();
    ASSERT_EQ(result->corruptions, 0u) << "cut " << cut << ": "
                                       << (result->messages.empty() ? "" : result->messages[0]);
    ASSERT_EQ(result->leaks, 0u) << "cut " << cut << ": " << (result->messages.empty() ? "" : result->messages[0]);
    std::vector<std::uint32_t> words(kBytes / 4);
    iovec v{words.data(), kBytes};
    ASSERT_EQ(after->read(0, {&v, 1}), 0);
    for (std::uint64_t s = 0; s < kBytes / kSector; ++s) {
      std::uint32_t value = words[s * kSector / 4];
      ASSERT_TRUE(allowed(s, value, cut)) << "cut " << cut << ", sector " << s << " has " << value;
    }
    ImageKit::expectClean(*after);
  }
};

TEST_P(PowerLoss, leavesAnImageThatOpensWithWhatWasFlushed) {
  CreateRequest request{.path = "a", .bytes = kBytes, .options = GetParam(), .files = &files, .replace = true};
  ASSERT_TRUE(createImage(*findFormat("qcow2"), request));
  std::size_t created = files.events().size();
  image = open(files);
  ASSERT_TRUE(image);
  int steps = fromEnvironment("LODGE_POWER_LOSS_STEPS", 120);
  for (int i = 0; i < steps; ++i) {
    step(i);
    if (HasFatalFailure()) return;
  }
  flush();
  image.reset();
  for (std::size_t cut = created; cut <= files.events().size(); ++cut) {
    examine(cut);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Geometries, PowerLoss,
                         testing::Values(ImageKit::Options{{"cluster_size", "4K"}},
                                         ImageKit::Options{{"cluster_size", "512"}, {"refcount_bits", "64"}},
                                         ImageKit::Options{{"cluster_size", "2K"}, {"lazy_refcounts", "on"}},
                                         ImageKit::Options{{"cluster_size", "16K"}, {"extended_l2", "on"}},
                                         ImageKit::Options{{"cluster_size", "1K"}, {"compat", "0.10"}}));

}  // namespace
}  // namespace lodge::image
