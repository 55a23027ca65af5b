// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "image/bitmaps.h"
#include "image/block_file.h"
#include "image/store.h"

namespace lodge::image {

/// What a range of an image's virtual disk is made of.
struct BlockStatus {
  enum class Kind : std::uint8_t {
    unallocated,  ///< not in this image: the backing image's content, or zero without one
    zero,         ///< reads as zero, by this image's own word
    data,
  };
  std::uint64_t length = 0;  ///< bytes of one kind from the offset asked for; at least 1
  Kind kind = Kind::data;
  bool compressed = false;                    ///< data, kept compressed
  bool hole = false;                          ///< zero because the file has a hole at hostOffset, the data's place
  std::optional<std::uint64_t> hostOffset{};  ///< data as it is, contiguous in `file` from here
  const BlockFile* file = nullptr;            ///< which file hostOffset counts in; the image's own if nullptr
};

struct SnapshotInfo {
  std::string id, name;
  std::uint64_t diskBytes = 0;     ///< the virtual disk's size then
  std::uint64_t vmStateBytes = 0;  ///< memory and devices kept with it
  std::uint64_t unixSeconds = 0;
  std::uint32_t nanoseconds = 0;
  std::uint64_t vmClock = 0;  ///< nanoseconds that the machine had run
};

/// Rows of a list in which each has the same fields: extents, bitmaps.
using InfoField = std::variant<bool, std::uint64_t, std::string, std::vector<std::string>>;
using InfoRows = std::vector<std::vector<std::pair<std::string, InfoField>>>;
using InfoValue = std::variant<bool, std::uint64_t, std::string, std::vector<std::string>, InfoRows>;

struct ImageInfo {
  std::string format;                ///< the driver's name
  std::uint64_t virtualBytes = 0;    ///< the disk's size
  std::uint64_t allocatedBytes = 0;  ///< on storage, all its files together, backing images not counted
  std::uint64_t clusterBytes = 0;    ///< unit of allocation; 0 where there is none
  std::string backingName{};         ///< as the image has it; empty without backing
  std::string backingFormat{};       ///< as the image has it; may be empty
  bool encrypted = false, dirty = false;
  std::vector<std::string> files{};  ///< further files that belong to it (extents, external data)
  std::vector<SnapshotInfo> snapshots{};
  /// What only this format has, in the order to print: {"compat", "1.1"}, {"refcount bits", 16}.
  std::vector<std::pair<std::string, InfoValue>> details{};
};

struct CheckResult {
  std::uint64_t corruptions = 0, leaks = 0;                ///< left in the image when the check ended
  std::uint64_t corruptionsFixed = 0, leaksFixed = 0;      ///< by this check
  std::uint64_t checkErrors = 0;                           ///< places that could not be looked at (read errors)
  std::uint64_t totalClusters = 0, allocatedClusters = 0;  ///< of the virtual disk
  std::uint64_t compressedClusters = 0, fragmentedClusters = 0;
  std::uint64_t imageEnd = 0;           ///< file offset after the last cluster in use
  std::vector<std::string> messages{};  ///< one a finding, at most kMaxMessages
  static constexpr std::size_t kMaxMessages = 1000;

  void note(std::string text) {
    if (messages.size() < kMaxMessages) messages.push_back(std::move(text));
  }
};

/// Called now and then, from any thread but one at a time; false: stop.
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

enum class Repair : std::uint8_t { none, leaks, all };
enum class Preallocation : std::uint8_t { off, metadata, falloc, full };

/// Fills a fresh image in ascending order, for formats and modes that are written as a stream (compressed clusters,
/// streamOptimized VMDK). encode() may run on many threads at once; the rest is called by one at a time.
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  /// Bytes of a unit; the last one of the disk may be shorter (what is missing counts as zero).
  virtual std::uint64_t unitBytes() const = 0;
  /// The unit as it is to be stored, into `encoded` (which is reused: capacity stays); empty: store it as it is.
  virtual int encode(std::span<const std::byte> unit, std::vector<std::byte>& encoded) const = 0;
  /// Offsets are multiples of unitBytes(), ascending. Units that are all zero are not put.
  virtual int put(std::uint64_t offset, std::span<const std::byte> unit, std::span<const std::byte> encoded) = 0;
  /// Writes what ends the stream (tables, footer). The image is good only after this and a flush.
  virtual int finish() = 0;
};

/// An open image of some format. Store's calls (read, write, flush, discard, writeZeroes) and blockStatus() may come
/// from several threads at once, at any alignment, within size(); the others need the image to themselves.
/// Content that proves corrupt on the way gives EIO and one line in the log.
class Image : public Store {
 public:
  /// The image's own bytes of the range, and from the backing image or zero where there are none (Store::read).
  /// What begins at `offset` in this image alone. `status.length` is at most `length`.
  virtual int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) = 0;

  virtual bool readOnly() const = 0;
  virtual Result<ImageInfo> info() = 0;

  /// The image that unallocated ranges come from, or nullptr. Owned by this.
  virtual Image* backing() const { return nullptr; }

  // What a format may not have: errors unsupported, naming the format.
  /// Bytes; multiples of 512. What is added reads as zero.
  virtual Status resize(std::uint64_t newBytes, Preallocation preallocation);
  /// Errors: also interrupted (progress said so, while nothing was repaired yet).
  virtual Result<CheckResult> check(Repair repair);
  /// Told by what takes long and has no other way: check(), and resize() while it reserves room.
  void onProgress(Progress progress) { progress_ = std::move(progress); }
  virtual Status createSnapshot(const std::string& name);
  virtual Status applySnapshot(const std::string& idOrName);
  virtual Status deleteSnapshot(const std::string& idOrName);
  /// Its persistent dirty bitmaps, owned by this; nullptr: the format has none.
  virtual BitmapStore* bitmaps() { return nullptr; }
  /// Records another backing image (empty: none) without touching content; the open chain stays as it is.
  virtual Status changeBacking(const std::string& name, const std::string& format);
  /// Drops all allocated content, so that the image equals its backing (after commit).
  virtual Status makeEmpty();
  /// For images that were just created. Errors: unsupported (no stream mode).
  virtual Result<std::unique_ptr<StreamWriter>> streamWriter();
  /// Whether such an image can only be filled by streamWriter().
  virtual bool streamOnly() const { return false; }

 protected:
  Error lacks(std::string_view what);
  const Progress& progress() const { return progress_; }

 private:
  Progress progress_;
};

/// Reserves a range of a file, which reads as zero then. errno-style; EINTR: progress said stop.
int reserveRoom(BlockFile& file, std::uint64_t offset, std::uint64_t length, const Progress& progress);

/// A range's status through the whole chain: never `unallocated` (zero instead).
int chainStatus(Image& image, std::uint64_t offset, std::uint64_t length, BlockStatus& status);

}  // namespace lodge::image
