// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "image/format.h"

namespace lodge::image {

struct CopyOptions {
  unsigned threads = 0;  ///< 0: by the number of processors
  /// How many of them write at a time; 0: all. The kernel lets one thread at a time write to a file through the page
  /// cache, and another that tries waits busily.
  unsigned writers = 0;
  /// What is copied at once, at least. In memory the processor's caches decide; on a disk large writes make large
  /// pages.
  std::uint64_t pieceBytes = 1 << 20;
  bool compress = false;
  std::uint64_t sparseBytes = 4096;  ///< zeroes that become holes, at least that many in a row; 0: none do
  bool targetIsZero = true;          ///< what is not written reads as zero there
  bool topLayerOnly = false;         ///< what the source does not have itself is left to the target's backing image
  bool salvage = false;              ///< what cannot be read is taken for zeroes
  /// Told of each piece that could not be read (with `salvage`), by one thread at a time.
  std::function<void(std::uint64_t offset, std::uint64_t length, int error)> onLoss{};
  Progress progress{};
};

/// Copies all of the disk's content, on several threads. The target may be larger. Errors: io (naming the place),
/// interrupted (progress said so), invalidArgument (target too small).
Status copyContent(Image& from, Image& to, const CopyOptions& options);

struct Difference {
  bool same = true;
  bool sizes = false;  ///< the disks' sizes differ
  std::uint64_t offset = 0;
};
/// First place where the contents differ; a longer disk's rest compares as zero. `strict`: sizes count.
Result<Difference> compareContent(Image& a, Image& b, bool strict, const Progress& progress);

/// Writes what the layers have of their own into `base`. The first one is the top; each of the others is what the one
/// before is based on, and `base` is what the last is based on. All are opened alone (OpenOptions::openBacking).
Status commitContent(std::span<const std::unique_ptr<Image>> layers, Image& base, const Progress& progress);

/// The images' disks one after the other, as one that is only read.
std::unique_ptr<Image> joinImages(std::vector<std::unique_ptr<Image>> parts);
/// A part of a disk, as one that is only read; what would lie beyond its end is left out.
std::unique_ptr<Image> partOfImage(std::unique_ptr<Image> image, std::uint64_t from, std::uint64_t bytes);

/// Makes `image` independent of the differences between its backing image and `newBacking` (nullptr: none): what reads
/// differently there is written into the image. `image` stays open on its old chain.
Status rebaseContent(Image& image, Image* newBacking, const Progress& progress);

struct Measure {
  std::uint64_t required = 0;              ///< bytes of a new image file with this content
  std::uint64_t fullyAllocated = 0;        ///< bytes once everything was written
  std::optional<std::uint64_t> bitmaps{};  ///< for the source's dirty bitmaps besides, where both formats have them
};
/// `source` nullptr: an empty disk. Exact for raw; for qcow2 as its layout is; others an upper bound.
Result<Measure> measureImage(const FormatDriver& driver, Image* source, std::uint64_t bytes,
                             const CreateRequest& request, const Progress& progress = {});

/// Gives `to` the bitmaps that `from` has, as they are. Errors: corrupt (one is inconsistent and not to be left out),
/// unsupported (the target's format has none).
Status copyBitmaps(Image& from, Image& to, bool skipBroken);

}  // namespace lodge::image
