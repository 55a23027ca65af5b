// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "memory/guest_memory.h"
#include "memory/page_store.h"
#include "memory/shared_pages.h"

namespace lodge {

/// Memory of a machine that shares pages (--share-pages): looks every few seconds whether the machine is idle, and then
/// has what it can give back go. Once it computes again, it gets all of it back. I/O thread.
class IdleMemory {
 public:
  struct Setup {
    TimerFactory& timers;
    GuestMemory& memory;
    PageStore& store;
    unsigned cpus;
    std::function<std::uint64_t()> slept;  ///< how long CPUs have slept, all together, in nanoseconds
    /// How long programs of the guest's have run in processes of their own, in nanoseconds.
    std::function<std::uint64_t()> executed;
    /// Whether the machine runs and is such that memory may go; cheap.
    std::function<bool()> mayShare;
    /// Calls the function while the machine stands still and nobody watches its memory; not if a device has a request
    /// under way, or the machine is about to end. Whether it was called.
    std::function<bool(const std::function<void()>&)> whileStill;
    /// A page that went cannot come back: the machine must not go on. Any thread.
    std::function<void(const Error&)> onFailure;
  };
  explicit IdleMemory(Setup setup);

  std::vector<std::pair<std::string, std::uint64_t>> statistics() const;

  static constexpr Nanoseconds kWindow = 3 * kNanosecondsPerSecond;
  /// From one round to the next; twice as much each time, while nothing but idling happens.
  static constexpr Nanoseconds kFirstSpacing = 15 * kNanosecondsPerSecond, kLongestSpacing = 16 * kFirstSpacing;
  /// Idle: CPUs are awake for less than a 20th of a window, or, where others have the host's processors, for less than
  /// what one is in half of it, while less than a 50th is computed. Busy: awake for more than that.
  static constexpr std::uint64_t kIdlePart = 20, kComputingPart = 50, kBusyPart = 2;
  static constexpr std::uint64_t kWorthwhile = 1_MiB;

 private:
  void look();
  void share(Nanoseconds now);
  bool isWorthwhile() const;
  std::uint64_t processorTime() const;

  Setup setup_;
  std::uint64_t slept_ = 0, computed_ = 0;  ///< as of looked_
  Nanoseconds looked_ = -1, notBefore_ = 0, spacing_ = kFirstSpacing;
  std::uint64_t resident_ = 0, stored_ = 0, rounds_ = 0, given_ = 0;
  bool wasSharing_ = false;  ///< after the last round
  std::shared_ptr<SharedPages::Report> report_ = std::make_shared<SharedPages::Report>();
  std::unique_ptr<Timer> timer_;
};

}  // namespace lodge
