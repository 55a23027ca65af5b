// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>

#include "base/file.h"

namespace lodge::image {

/// Writes of several threads to a new file in memory (tmpfs). The kernel lets one thread at a time write to a file, and
/// nearly all of that time makes pages: whoever finds the file busy puts new pages into its holes by userfaultfd
/// (UFFDIO_COPY), which needs no lock of the file, and reports a full file system or a page that is there already
/// instead of raising a signal. All that grows or shrinks the file goes through here. Any thread may call.
class PageFiller {
 public:
  /// For a file of `size` bytes that is open for reading and writing, and outlives this; nullptr where the host forbids
  /// userfaultfd, or a limit on files' sizes (RLIMIT_FSIZE) leaves no room to try.
  static std::unique_ptr<PageFiller> create(int file, std::uint64_t size);
  PageFiller(const PageFiller&) = delete;
  PageFiller& operator=(const PageFiller&) = delete;

  /// 0 or an errno value. The file may become longer than that.
  int write(std::uint64_t offset, std::span<const iovec> from);
  /// The file is as long as truncate() and what was written since say. 0 or an errno value.
  int trim();
  /// 0 or an errno value.
  int truncate(std::uint64_t size);

 private:
  PageFiller(int file, std::uint64_t size, UniqueFd faults)
      : file_(file), faults_(std::move(faults)), length_(size), size_(size) {}
  bool fill(std::uint64_t offset, const iovec& from);
  void lengthen(std::uint64_t end);
  void use(std::uint64_t end);
  int cutTo(std::uint64_t size);

  int file_;
  UniqueFd faults_;
  std::mutex writing_;                 // held by whoever writes as usual
  std::shared_mutex cutting_;          // held by whoever makes the file shorter, and shared by whoever puts pages in
  std::atomic<std::uint64_t> length_;  // of the file; changed under writing_
  std::atomic<std::uint64_t> size_;    // what of it counts; changed under either
};

}  // namespace lodge::image
