// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_seats.h"

#include <algorithm>
#include <cstring>

namespace lodge::translate {

namespace {
constexpr std::uint64_t kForever = ~std::uint64_t{0};

bool allow(const cpu_set_t& processors) {
  return ::sched_setaffinity(0, sizeof processors, &processors) == 0;
}

/// The thread may use `before` again. The kernel remembers what a thread asked for, and holds it to that when its
/// cpuset grows: if it was the cpuset alone that said so, it asks for every processor.
void allowAgain(const cpu_set_t& before) {
  cpu_set_t all, given;
  std::memset(&all, 0xff, sizeof all);
  if (allow(all) && ::sched_getaffinity(0, sizeof given, &given) == 0 && CPU_EQUAL(&given, &before)) return;
  allow(before);
}
}  // namespace

std::optional<cpu_set_t> ExecutorSeats::better(int now, const cpu_set_t& allowed, std::span<const int> taken) {
  auto others = [&](int processor) { return std::ranges::count(taken, processor); };
  constexpr int kMost = CPU_SETSIZE;
  auto least = others(now);
  if (least == 0) return std::nullopt;
  bool any = false;
  cpu_set_t best;
  for (int p = 0; p < kMost; ++p) {
    if (!CPU_ISSET(static_cast<unsigned>(p), &allowed)) continue;
    auto n = others(p);
    if (n > least || (n == least && !any)) continue;
    if (n < least) CPU_ZERO(&best);
    any = true;
    least = n;
    CPU_SET(static_cast<unsigned>(p), &best);
  }
  return any ? std::optional(best) : std::nullopt;
}

std::vector<int> ExecutorSeats::takenByOthers(const ExecutorSeat& mine, std::uint64_t ticks) const {
  std::vector<int> taken;
  std::scoped_lock lock(mutex_);
  for (const ExecutorSeat* seat : seats_) {
    if (seat != &mine && seat->processor() >= 0 && seat->isTaken(ticks)) taken.push_back(seat->processor());
  }
  return taken;
}

ExecutorSeat::ExecutorSeat(ExecutorSeats& seats, std::uint64_t window) : seats_(seats), window_(window) {
  std::scoped_lock lock(seats_.mutex_);
  seats_.seats_.push_back(this);
}

ExecutorSeat::~ExecutorSeat() {
  std::scoped_lock lock(seats_.mutex_);
  std::erase(seats_.seats_, this);
}

bool ExecutorSeat::take(int now, std::uint64_t ticks) {
  processor_.store(now, std::memory_order_relaxed);
  takenUntil_.store(kForever, std::memory_order_relaxed);
  if (ticks < lookAt_) return false;
  lookAt_ = ticks + window_;
  return move(now, ticks);
}

bool ExecutorSeat::move(int now, std::uint64_t ticks) {
  std::vector<int> taken = seats_.takenByOthers(*this, ticks);
  if (std::ranges::find(taken, now) == taken.end()) return false;
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;  // more processors than a set has
  auto better = ExecutorSeats::better(now, allowed, taken);
  if (!better) return false;
  bool moved = allow(*better);
  int there = ::sched_getcpu();
  // Others that look meanwhile see it there.
  if (moved) processor_.store(there, std::memory_order_relaxed);
  allowAgain(allowed);
  return moved;
}

}  // namespace lodge::translate
