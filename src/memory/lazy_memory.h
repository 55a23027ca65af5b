// SPDX-License-Identifier: Apache-2.0
// Inside of GuestMemory: memory that is filled as it is touched.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
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
/// Documentation/admin-guide/mm/userfaultfd.rst. SharedPages wait until they are touched, all at once when touches
/// follow fast, as then the machine is busy.
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

  /// Whether the host has what it takes.
  static bool isPossible();
  /// Makes sure that [offset, offset + length) is there. Any thread.
  void need(std::uint64_t offset, std::uint64_t length);
  /// Loads all that is left. Nothing is watched then: the host's kernel finds what is zero, too. Any thread.
  Status finish();
  /// Has all that waits be loaded, in the background. Any thread.
  void hurry();
  /// From here on nobody loads anything, and touches of what is not there wait, until the object goes.
  void stop();
  /// Whether a piece is in memory, or has been there.
  bool isLoaded(std::size_t piece) const { return loaded_[piece].load(std::memory_order_acquire) != kMissing; }
  /// Pages of [offset, offset + length), which were loaded, went back to the host.
  void discarded(std::uint64_t offset, std::uint64_t length);

 private:
  /// Of a piece. `present`: its page, if it is one, can be accessed by the host's kernel on its own.
  enum Progress : std::uint8_t { kMissing, kLoaded, kPresent };

  explicit LazyMemory(const Setup& setup);
  bool open();
  Status loadAllNow();
  void run();
  void serve(std::uint64_t address);
  /// Loads the next piece that nobody asked for; false: there is none.
  bool loadNext();
  void loadPiece(std::size_t piece);
  Status copyRuns(std::uint64_t offset, std::size_t length);
  void fillZero(std::uint64_t offset, std::uint64_t length);
  void makePresent(std::uint64_t offset, std::uint64_t length);
  void wake(std::uint64_t offset, std::uint64_t length);
  bool isBusy();
  void end();
  std::size_t lengthOf(std::size_t piece) const;

  Setup setup_;
  std::size_t pieceBytes_, pieces_;
  bool waits_;
  bool kernelWaits_ = false;  ///< the kernel's own accesses find what is missing, too
  UniqueFd fault_, call_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  ///< loading; the buffer
  std::vector<std::byte> buffer_;
  std::vector<std::atomic<std::uint8_t>> loaded_;
  std::size_t next_ = 0;
  unsigned touches_ = 0;  ///< since touchesSince_
  std::chrono::steady_clock::time_point touchesSince_;
  std::mutex ending_;
  bool failed_ = false;
  Status failure_;
  std::thread thread_;
};

}  // namespace lodge
