// SPDX-License-Identifier: Apache-2.0
// Which address spaces run in executors.
#include <malloc.h>
#include <x86intrin.h>

#include <algorithm>

#include "base/trace.h"
#include "engine/translate/executor.h"
#include "engine/translate/vcpu_context.h"
#include "x86/cpu_model.h"

namespace lodge::translate {

using namespace x86;

namespace {
constexpr std::uint64_t kRoot = 0x000f'ffff'ffff'f000;
/// Events that find user code of one address space running, one after the other, before it is taken for a program that
/// computes; events closer together count as one (microseconds).
constexpr std::uint64_t kStreak = 4, kApart = 1000;
/// An executor is left when it stops too often, which is looked at after so many stops: a program that fills new memory
/// does so for a while. It is tried again after some time (microseconds), which doubles for one that calls its kernel
/// all the time, until it is worth it.
constexpr std::uint64_t kStops = 128;
/// Or if the CPU's mode is not for executors so often in turn.
constexpr unsigned kUnsuited = 100;
constexpr std::uint64_t kFirstPenalty = 4'000, kLongestPenalty = 10'000'000;
/// To start an executor, one after the other, before the host is taken for one that has none.
constexpr unsigned kMostFailures = 4;
/// One that has not run for so long may be another program's, and is given up after kForgotten.
constexpr std::uint64_t kKept = 300'000;
constexpr std::uint64_t kForgotten = 1'000'000;
/// While a program fills new memory it is in the vCPU's own code, where a page fault costs a third. Whether it still
/// does is looked at after so many microseconds, and twice as many each time; it does if a fault comes in every
/// kFilling. Then it stays as long as the executor would need to map what it filled: programs use much memory briefly.
constexpr std::uint64_t kLinger = 250, kLongestLinger = 1'000, kFilling = 15, kMapping = 8, kMostMapping = 50'000,
                        kMuch = 1024;
/// How often it is looked at whether two executors of the machine share a processor (microseconds).
constexpr std::uint64_t kSeat = 2'000;
}  // namespace

Executors::Executors(VcpuContext& context, const Options& options)
    : context_(context),
      always_(options.always),
      native_(options.native),
      translated_(options.translated),
      seat_(context.store->executorSeats(), ticks(kSeat)) {}

std::optional<Executors::Options> Executors::chosen(std::string_view trace, const CpuModel& model) {
  bool always = traces(trace, "executors"), native = mayRunNatively(model),
       everywhere = traces(trace, "executors-auto");
  if (!ExecutorProcess::isPossible() || traces(trace, "no-executors")) return std::nullopt;
  if (always) return Options{true, native && traces(trace, "executors-native"), true};
  if (!native && !everywhere) return std::nullopt;
  return Options{false, native, everywhere};
}

std::uint64_t Executors::ticks(std::uint64_t microseconds) const {
  return context_.cpu->model->ticksPerSecond() / 1'000'000 * microseconds;
}

std::uint64_t Executors::root() const {
  return context_.cpu->state.cr3 & kRoot;
}

Executors::Space* Executors::find(std::uint64_t root) {
  for (Space& space : spaces_) {
    if (space.root == root) return &space;
  }
  return nullptr;
}

/// Protection keys change what pages give without a change of page tables.
bool Executors::mayRun() const {
  const CpuState& s = context_.cpu->state;
  return !impossible_ && s.cpl == 3 && context_.cpu->mode64() && (s.cr4 & (cr4::la57 | cr4::pke)) == 0 && s.smm == 0 &&
         !context_.cpu->memory->isLoading();
}

Executor* Executors::current() {
  if (always_ && mayRun() && !find(root())) promote(context_.cpu->state.cr3, __rdtsc());
  if (spaces_.empty()) return nullptr;
  Space* space = find(root());
  if (!space || !space->active || !mayRun()) return nullptr;
  if (space->threadId != context_.threadId) {  // processes end with the thread that made them
    context_.cpu->parkFpu();
    std::erase_if(spaces_, [&](const Space& s) { return s.threadId != context_.threadId; });
    return nullptr;
  }
  if (space->cr3 != context_.cpu->state.cr3) {  // under another PCID
    space->cr3 = context_.cpu->state.cr3;
    space->executor->flushAll();
  }
  space->lastUse = __rdtsc();
  return space->executor.get();
}

void Executors::promote(std::uint64_t cr3, std::uint64_t now) {
  context_.cpu->parkFpu();
  std::uint64_t root = cr3 & kRoot;
  Space* space = find(root);
  if (space && now < space->retryAt) return;
  bool isNew = false;
  if (!space && spaces_.size() < kMost) {
    if (now < startAt_) return;
    auto executor = Executor::create(context_, counters_);
    if (!executor) {  // for want of memory or processes just now, or the host refuses
      startAt_ = now + ticks(kLongestPenalty);
      impossible_ = always_ || ++failures_ == kMostFailures;
      return;
    }
    failures_ = 0;
    spaces_.push_back({});
    space = &spaces_.back();
    space->executor = std::move(executor);
    space->threadId = context_.threadId;
    isNew = true;
  } else if (!space) {
    space = &*std::min_element(spaces_.begin(), spaces_.end(),
                               [](const Space& a, const Space& b) { return a.lastUse < b.lastUse; });
    if (now - space->lastUse < ticks(kKept)) return;
    space->executor->forgetAll();
    space->penalty = space->retryAt = 0;
    isNew = true;
  }
  space->root = root;
  space->cr3 = cr3;
  space->lastUse = now;
  if (isNew && !space->executor->begin() && !translated_) {
    space->retryAt = now + ticks(kLongestPenalty);
    return;
  }
  space->executor->flushAll();
  space->executor->isWorthIt();  // from now on
  space->active = true;
  context_.frame->userKey = 0;  // SYSRET goes the long way, which leads to the executor
  ++counters_.promotions;
}

void Executors::noteEvent() {
  std::uint64_t now = __rdtsc();
  if (impossible_ || now - lastEvent_ < ticks(kApart)) return;
  lastEvent_ = now;
  if (!spaces_.empty()) {
    context_.cpu->parkFpu();
    std::uint64_t all = endedNanoseconds_;
    for (const Space& space : spaces_) all += space.executor->processorTime();
    counters_.nanoseconds = all;
    auto ended = std::erase_if(spaces_, [&](const Space& space) {
      if (now < std::max(space.lastUse, space.retryAt) + ticks(kForgotten) || space.root == linger_.root) return false;
      endedNanoseconds_ += space.executor->processorTime();
      return true;
    });
    if (ended != 0) ::malloc_trim(0);  // what described them
  }
  std::uint64_t cr3 = context_.cpu->state.cr3;
  Space* space = find(cr3 & kRoot);
  bool lingers = space && space->root == linger_.root;
  if (!mayRun() || lingers || (space && space->active)) {
    streak_ = 0;
    return;
  }
  streak_ = (candidate_ & kRoot) == (cr3 & kRoot) ? streak_ + 1 : 1;
  candidate_ = cr3;
  if (streak_ < (space ? 1 : kStreak)) return;  // or it was a program that computes before
  streak_ = 0;
  promote(cr3, now);
}

void Executors::noteRun(Executor& executor, Executor::End end) {
  auto at = std::find_if(spaces_.begin(), spaces_.end(), [&](const Space& s) { return s.executor.get() == &executor; });
  if (at == spaces_.end()) return;
  if (end == Executor::End::gone) {
    ++counters_.lost;
    spaces_.erase(at);
    return;
  }
  if (end == Executor::End::dead) {
    ++counters_.lost;
    // What the program did is lost with its registers: it ends with a #GP.
    context_.cpu->state.rip = std::uint64_t{1} << 47;
    spaces_.erase(at);
    return;
  }
  if (end == Executor::End::refused) {
    at->active = false;
    at->retryAt = __rdtsc() + ticks(kLongestPenalty);
    ++counters_.demotions;
    return;
  }
  if (end == Executor::End::remapped) {
    executor.forgetAll();
    if (!always_) at->active = false;
    return;
  }
  if (always_) return;
  if (executor.fillsMemory()) {
    linger(*at);
    if (!at->active) return;
  }
  at->unsuited = end == Executor::End::unsuited ? at->unsuited + 1 : 0;
  if (at->unsuited >= kUnsuited) {
    at->unsuited = 0;
    at->active = false;
    at->retryAt = __rdtsc() + ticks(kLongestPenalty);
    ++counters_.demotions;
    return;
  }
  if (executor.stops() < kStops) return;
  if (executor.isWorthIt()) {
    at->penalty = 0;
    return;
  }
  std::uint64_t longest = executor.faultedMost() ? kFirstPenalty : kLongestPenalty;
  at->penalty = std::clamp(2 * at->penalty, ticks(kFirstPenalty), ticks(longest));
  at->retryAt = __rdtsc() + at->penalty;
  at->active = false;
  ++counters_.demotions;
}

bool Executors::wait(std::uint64_t ticks) {
  constexpr std::uint64_t kNano = 1'000'000'000;
  linger_.since = __rdtsc();  // before the timer: its kick must not come too early to count
  if (!timer_.kickIn(ticks * kNano / context_.cpu->model->ticksPerSecond(), context_.threadId)) return false;
  linger_.until = linger_.since + ticks;
  linger_.window = ticks;
  linger_.failed = context_.userFaults;
  return true;
}

void Executors::linger(Space& space) {
  space.executor->endBurst();
  linger_ = {};
  if (!wait(ticks(kLinger))) return;
  ++counters_.lingers;
  linger_.root = space.root;
  space.active = false;
}

/// Back to the executor, if it is time.
void Executors::endLinger() {
  std::uint64_t now = __rdtsc();
  if (now < linger_.until) return;
  Space* space = find(linger_.root);
  if (!space || space->active) {
    linger_ = {};
    return;
  }
  std::uint64_t faults = context_.userFaults - linger_.failed;
  linger_.filled += faults;
  space->lastUse = now;
  if (faults * ticks(kFilling) > now - linger_.since) {
    linger_.quietAt = 0;
    if (wait(std::min(2 * linger_.window, ticks(kLongestLinger)))) return;
  }
  if (linger_.quietAt == 0) linger_.quietAt = now;
  std::uint64_t cost = linger_.filled < kMuch ? 0 : std::min(linger_.filled * kMapping, kMostMapping);
  std::uint64_t end = linger_.quietAt + ticks(cost);
  if (now < end && wait(std::clamp(end - now, ticks(kLinger), ticks(kLongestLinger)))) return;
  linger_ = {};
  context_.cpu->parkFpu();
  space->executor->flushAll();
  space->executor->isWorthIt();  // from now on
  space->active = true;
  context_.frame->userKey = 0;
}

void Executors::flushPage(std::uint64_t linear) {
  for (Space& space : spaces_) space.executor->flushPage(linear);
}

void Executors::flushAll() {
  for (Space& space : spaces_) space.executor->flushAll();
}

void Executors::addressSpaceChanged(bool noFlush) {
  Space* space = spaces_.empty() ? nullptr : find(context_.cpu->state.cr3 & kRoot);
  if (!space) return;
  if (!noFlush) space->executor->flushAll();
  if (space->active) context_.frame->userKey = 0;
}

}  // namespace lodge::translate
