// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/block_file.h"

namespace lodge {

/// How to open a disk image.
struct DiskOptions {
  std::string path;
  std::string format{};  ///< a format's name; empty: by content
  bool readOnly = false;
  bool snapshot = false;  ///< writes go to a temporary overlay that is dropped at close
  image::CacheMode cache = image::CacheMode::writeback;
  std::vector<std::string> allowedPaths{};  ///< where names inside the image may lead besides its own folder
};

/// An open disk image. Thread-safe: several queues may have requests in flight.
/// Offsets and lengths are in bytes, any alignment, within sizeBytes().
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::uint64_t sizeBytes() const = 0;
  virtual bool readOnly() const = 0;

  /// Done with: 0, or a positive errno value. Called on some thread of the disk's, or on the caller's before the call
  /// returns.
  using Completion = std::function<void(int error)>;
  /// The iovecs must stay valid until completion.
  virtual void read(std::uint64_t offset, std::span<const iovec> to, Completion done) = 0;
  virtual void write(std::uint64_t offset, std::span<const iovec> from, Completion done) = 0;
  /// What was written before this call was made is on stable storage when it completes.
  virtual void flush(Completion done) = 0;
  /// The range may read as anything (here: zeroes) afterwards.
  virtual void discard(std::uint64_t offset, std::uint64_t length, Completion done) = 0;
  virtual void writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap, Completion done) = 0;
  /// While no request is under way: returns when everything that was written is on stable storage, and the image's
  /// files are what closing it would leave, until something is written again. 0, or a positive errno value.
  virtual int settle();
};

/// Opens and locks (OFD locks: shared for read-only, exclusive for writing). Errors: notFound, permissionDenied
/// (read-only file: hint `readonly` or `--snapshot`), busy (the message names the holder's pid where known),
/// unsupported (format).
Result<std::unique_ptr<Disk>> openDisk(const DiskOptions& options);

}  // namespace lodge
