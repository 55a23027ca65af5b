// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace lodge::image {

/// A persistent dirty bitmap: one bit a piece of the disk, set by what changes there. Backup programs keep them.
struct BitmapInfo {
  std::string name;
  std::uint64_t granularity = 0;  ///< bytes of the disk that one bit stands for; a power of two
  bool recording = false;         ///< changes are noted in it; otherwise it stays as it is
  bool inUse = false;             ///< a writer did not end well: it says too little, and can only be removed
  std::string unsupported{};      ///< why it cannot be read or changed; empty: it can
};

/// The bitmaps of an image. As its snapshots: calls need the image to themselves. Errors besides those named: corrupt,
/// io.
class BitmapStore {
 public:
  /// A dirty range of the disk, ascending; false: stop.
  using Tell = std::function<bool(std::uint64_t offset, std::uint64_t length)>;
  static constexpr std::uint64_t kMinGranularity = 512, kMaxGranularity = std::uint64_t{1} << 31;
  static constexpr std::size_t kMaxName = 1023, kMaxBitmaps = 65535;

  virtual ~BitmapStore() = default;
  virtual Result<std::vector<BitmapInfo>> list() = 0;
  /// `granularity` 0: the image's cluster size, within 4 KiB and 64 KiB. Nothing is dirty in the new one. Errors:
  /// alreadyExists, invalidArgument (name, granularity), unsupported (the image's version, too many).
  virtual Status add(const std::string& name, std::uint64_t granularity, bool recording) = 0;
  /// Errors: notFound. So have the others.
  virtual Status remove(const std::string& name) = 0;
  virtual Status clear(const std::string& name) = 0;
  virtual Status setRecording(const std::string& name, bool recording) = 0;
  virtual Status forEachDirty(const std::string& name, const Tell& tell) = 0;
  /// Notes what `other` of `from` (this store, or another image's) has. Errors: invalidArgument (disks of unequal
  /// size).
  virtual Status merge(const std::string& name, BitmapStore& from, const std::string& other) = 0;
  /// The disk that the bitmaps are about, in bytes.
  virtual std::uint64_t diskBytes() const = 0;
};

}  // namespace lodge::image
