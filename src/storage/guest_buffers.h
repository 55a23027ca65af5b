// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace lodge {

/// Pieces of guest RAM that a controller moves data to or from, in order. A piece that is not RAM is refused.
class GuestBuffers {
 public:
  explicit GuestBuffers(GuestMemory& memory) : memory_(&memory) {}

  /// Appends [address, address + length). False: not RAM, or too many pieces.
  [[nodiscard]] bool add(std::uint64_t address, std::uint64_t length) {
    if (length == 0) return true;
    if (ranges_.size() >= kMostRanges) return false;
    // A range across the hole below 4 GiB, or across a page that shadows another, is not one piece: page by page.
    std::byte* whole = memory_->span(Gpa{address}, length);
    if (whole) {
      append(address, length, whole);
      return true;
    }
    while (length != 0) {
      std::uint64_t part = std::min(length, kPageSize - address % kPageSize);
      std::byte* host = memory_->span(Gpa{address}, part);
      if (!host || ranges_.size() >= kMostRanges) return false;
      append(address, part, host);
      address += part;
      length -= part;
    }
    return true;
  }
  std::uint64_t bytes() const { return bytes_; }
  std::span<const iovec> vectors() const { return vectors_; }
  /// Keeps the first `bytes`.
  void truncate(std::uint64_t bytes) {
    bytes_ = std::min(bytes, bytes_);
    std::uint64_t left = bytes_;
    std::size_t count = 0;
    for (; count < vectors_.size() && left != 0; ++count) {
      vectors_[count].iov_len = static_cast<std::size_t>(std::min<std::uint64_t>(vectors_[count].iov_len, left));
      ranges_[count].length = vectors_[count].iov_len;
      left -= vectors_[count].iov_len;
    }
    vectors_.resize(count);
    ranges_.resize(count);
  }
  /// The device wrote through vectors().
  void written() const {
    for (const Range& r : ranges_) memory_->written(Gpa{r.address}, r.length);
  }
  /// Copies to the guest from offset `at` on; returns how much there was room for.
  std::size_t write(std::uint64_t at, std::span<const std::uint8_t> from) const {
    std::size_t done = 0;
    for (std::size_t n = 0; n < vectors_.size() && done < from.size(); ++n) {
      if (at >= vectors_[n].iov_len) {
        at -= vectors_[n].iov_len;
        continue;
      }
      std::size_t part = std::min<std::size_t>(vectors_[n].iov_len - at, from.size() - done);
      std::memcpy(static_cast<std::byte*>(vectors_[n].iov_base) + at, from.data() + done, part);
      memory_->written(Gpa{ranges_[n].address + at}, part);
      done += part;
      at = 0;
    }
    return done;
  }
  std::size_t read(std::uint64_t at, std::span<std::uint8_t> to) const {
    std::size_t done = 0;
    for (std::size_t n = 0; n < vectors_.size() && done < to.size(); ++n) {
      if (at >= vectors_[n].iov_len) {
        at -= vectors_[n].iov_len;
        continue;
      }
      std::size_t part = std::min<std::size_t>(vectors_[n].iov_len - at, to.size() - done);
      std::memcpy(to.data() + done, static_cast<std::byte*>(vectors_[n].iov_base) + at, part);
      done += part;
      at = 0;
    }
    return done;
  }

 private:
  static constexpr std::size_t kMostRanges = 70'000;  // an AHCI table has 65,535 entries
  struct Range {
    std::uint64_t address, length;
  };
  void append(std::uint64_t address, std::uint64_t length, std::byte* host) {
    bytes_ += length;
    if (!vectors_.empty() && static_cast<std::byte*>(vectors_.back().iov_base) + vectors_.back().iov_len == host &&
        ranges_.back().address + ranges_.back().length == address) {
      vectors_.back().iov_len += length;
      ranges_.back().length += length;
      return;
    }
    vectors_.push_back({host, static_cast<std::size_t>(length)});
    ranges_.push_back({address, length});
  }

  GuestMemory* memory_;
  std::vector<iovec> vectors_;
  std::vector<Range> ranges_;
  std::uint64_t bytes_ = 0;
};

}  // namespace lodge
