// SPDX-License-Identifier: Apache-2.0
#include "network/shaper.h"

#include <algorithm>

namespace lodge::network {

namespace {

/// What may wait for the rate: as long as a home router's queue, but room for some large segments.
constexpr Nanoseconds kLongestWait = 100'000'000;
constexpr std::size_t kAlwaysRoom = 256 << 10;
constexpr std::size_t kMostHeld = 4 << 20;

}  // namespace

Shaper::Shaper(TimerFactory& timers, Output output) : timers_(timers), output_(std::move(output)) {}

Nanoseconds Shaper::timeOf(std::size_t bytes) const {
  if (settings_.rate == 0) return 0;
  return static_cast<Nanoseconds>(static_cast<double>(bytes) * 8e9 / static_cast<double>(settings_.rate));
}

void Shaper::push(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (settings_.plain() && held_.empty()) return output_(frame, offload);
  if (settings_.lossParts != 0 && random_() % 1'000'000 < settings_.lossParts) {
    ++dropped_;
    return;
  }
  Nanoseconds now = timers_.clock().now();
  Nanoseconds start = std::max(now, free_);
  if (heldBytes_ + frame.size() > kMostHeld || (start - now > kLongestWait && start - now > timeOf(kAlwaysRoom))) {
    ++dropped_;
    return;
  }
  free_ = start + timeOf(frame.size());
  Nanoseconds due = free_ + settings_.delay;
  // What was sent under other settings does not overtake.
  if (!held_.empty()) due = std::max(due, held_.back().due);
  heldBytes_ += frame.size();
  held_.push_back({due, {frame.begin(), frame.end()}, offload});
  if (!timer_) timer_ = timers_.makeTimer([this] { run(); });
  if (held_.size() == 1) timer_->arm(due);
}

void Shaper::run() {
  while (!held_.empty() && held_.front().due <= timers_.clock().now()) {
    Held first = std::move(held_.front());
    held_.pop_front();
    heldBytes_ -= first.frame.size();
    output_(first.frame, first.offload);
  }
  if (!held_.empty()) timer_->arm(held_.front().due);
}

}  // namespace lodge::network
