// SPDX-License-Identifier: Apache-2.0
// Inside of GuestMemory: memory that is filled as it is touched.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "memory/guest_memory.h"

namespace lodge {

/// Fills three views of one empty memory file from a source: a userfaultfd tells of each touch of a page that is not
/// there, and a thread loads its piece; when nobody waits, it loads what is left. Linux
/// Documentation/admin-guide/mm/userfaultfd.rst.
class LazyMemory {
 public:
  struct Setup {
    std::array<std::byte*, 3> views;  ///< the first may be written
    std::uint64_t bytes;
    const MemorySource& source;
    bool kernelTouches;
    std::function<void(const Error&)> onFailure;
    std::atomic<bool>& loading;  ///< true until all is there
  };
  /// Where the host has no userfaultfd, all is loaded at once.
  static Result<std::unique_ptr<LazyMemory>> start(const Setup& setup);
  ~LazyMemory();

  /// Makes sure that [offset, offset + length) is there. Any thread.
  void need(std::uint64_t offset, std::uint64_t length);
  Status finish();

 private:
  explicit LazyMemory(const Setup& setup);
  bool open();
  Status loadAllNow();
  void run();
  void serve(std::uint64_t address);
  /// Loads the next piece that nobody asked for; false: there is none.
  bool loadNext();
  void loadPiece(std::size_t piece);
  void copyRuns(std::uint64_t offset, std::size_t length);
  void fillZero(std::uint64_t offset, std::uint64_t length);
  void wake(std::uint64_t offset, std::uint64_t length);
  void end();
  std::size_t lengthOf(std::size_t piece) const;

  Setup setup_;
  std::size_t pieceBytes_, pieces_;
  UniqueFd fault_, stop_;
  std::mutex mutex_;  ///< loading; the buffer
  std::vector<std::byte> buffer_;
  std::vector<std::atomic<std::uint8_t>> loaded_;
  std::size_t next_ = 0;
  bool failed_ = false;
  Status failure_;
  std::thread thread_;
};

}  // namespace lodge
