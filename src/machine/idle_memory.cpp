// SPDX-License-Identifier: Apache-2.0
#include "machine/idle_memory.h"

#include <malloc.h>
#include <time.h>

#include <algorithm>

#include "base/log.h"

namespace lodge {

IdleMemory::IdleMemory(Setup setup) : setup_(std::move(setup)) {
  timer_ = setup_.timers.makeTimer([this] { look(); });
  timer_->arm(setup_.timers.clock().now() + kWindow);
}

/// The process's, with its executors'.
std::uint64_t IdleMemory::processorTime() const {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * kNanosecondsPerSecond + static_cast<std::uint64_t>(t.tv_nsec) +
         setup_.executed();
}

void IdleMemory::look() {
  Nanoseconds now = setup_.timers.clock().now();
  timer_->arm(now + kWindow);
  if (!setup_.mayShare()) {
    looked_ = -1;  // it does not sleep while it is paused
    return;
  }
  std::uint64_t slept = setup_.slept();
  auto span = static_cast<std::uint64_t>(now - looked_), window = span * setup_.cpus;
  std::uint64_t awake = window - std::min(window, slept - std::min(slept, slept_));
  bool known = looked_ >= 0;
  std::uint64_t total = processorTime(), computed = total - std::min(total, computed_);
  slept_ = slept;
  computed_ = total;
  looked_ = now;
  if (!known) return;
  if (wasSharing_ && !setup_.memory.isSharing()) {
    // It was busy, though not for long, and got all back.
    wasSharing_ = false;
    spacing_ = kFirstSpacing;
    notBefore_ = std::min(notBefore_, now + spacing_);
  }
  if (awake > span / kBusyPart) {
    spacing_ = kFirstSpacing;
    // A program that computes is better off without: executors want all of memory to be there.
    if (setup_.memory.isSharing()) setup_.memory.hurryLoading();
    return;
  }
  bool idle = awake < window / kIdlePart || computed < span / kComputingPart;
  if (idle && now >= notBefore_ && isWorthwhile()) share(now);
}

/// Something came back since the last time, or others have put more into the store, or not all was looked at.
bool IdleMemory::isWorthwhile() const {
  constexpr std::uint64_t kPages = kWorthwhile / kPageSize;
  return rounds_ == 0 || report_->next < setup_.memory.size() ||
         setup_.memory.residentBytes() >= resident_ + kWorthwhile || setup_.store.count() >= stored_ + kPages ||
         (!setup_.memory.isSharing() && setup_.store.count() != 0);
}

void IdleMemory::share(Nanoseconds now) {
  // Another machine adds to the store just now: the next look comes soon.
  if (!setup_.store.begin()) return;
  report_->givenBack = 0;
  bool stood = setup_.whileStill([&] {
    Status done = setup_.memory.load(std::make_unique<SharedPages>(setup_.store, report_), false, setup_.onFailure);
    if (!done) log(LogLevel::info, "no memory goes back: {}", done.error().message());
  });
  setup_.store.end();
  if (!stood) return;
  std::uint64_t given = report_->givenBack;
  ::malloc_trim(0);
  given_ += given;
  ++rounds_;
  resident_ = setup_.memory.residentBytes();
  stored_ = setup_.store.count();
  Nanoseconds after = setup_.timers.clock().now();
  wasSharing_ = setup_.memory.isSharing();
  looked_ = -1;  // the round itself is no window
  notBefore_ = after + spacing_;
  spacing_ = std::min(2 * spacing_, kLongestSpacing);
  log(LogLevel::info, "the machine is idle: {} KiB of memory went back to the host in {} us", given / 1_KiB,
      (after - now) / 1000);
}

std::vector<std::pair<std::string, std::uint64_t>> IdleMemory::statistics() const {
  return {{"memory.shared", setup_.memory.isSharing() ? report_->away * kPageSize : 0},
          {"memory.share_rounds", rounds_},
          {"memory.given_back", given_}};
}

}  // namespace lodge
