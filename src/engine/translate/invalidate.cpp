// SPDX-License-Identifier: Apache-2.0
// What happens when translated guest code changes, and when the cache is full.
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>
#include <ctime>
#include <utility>

#include "engine/translate/host_call.h"
#include "engine/translate/translation_store.h"

namespace lodge::translate {

void TranslationStore::guestCodeWritten(std::uint64_t offset, std::uint64_t length) {
  if (length == 0 || offset >= memory_.backingSize() || length > memory_.backingSize() - offset) return;
  std::uint64_t first = offset, last = first + length - 1;
  std::scoped_lock lock(mutex_);
  bool dropped = false;
  for (std::uint64_t ramPage = first >> 12; ramPage <= last >> 12; ++ramPage) {
    if (memory_.codePages()[ramPage].load(std::memory_order_relaxed) == 0) continue;
    std::uint64_t pageStart = ramPage << 12;
    unsigned from = first > pageStart ? static_cast<unsigned>(first - pageStart) : 0;
    unsigned to = last - pageStart < kPageSize ? static_cast<unsigned>(last - pageStart) : kPageSize - 1;
    std::uint64_t upTo = to >> 6 == 63 ? ~std::uint64_t{0} : (std::uint64_t{1} << ((to >> 6) + 1)) - 1;
    std::uint64_t written = upTo & ~((std::uint64_t{1} << (from >> 6)) - 1);
    bool kept = followers_.empty();
    for (CodeFollower* follower : followers_) kept = follower->codeWritten(ramPage, written) || kept;
    std::uint64_t granules = granulesLocked(ramPage);
    if ((granules & written) != 0) {
      invalidatePageLocked(ramPage);
      dropped = true;
    } else if (granules == 0 && !kept) {  // a follower's once, and nobody's now
      invalidatePageLocked(ramPage);
    }
  }
  if (dropped) {
    endInvalidationLocked();
    return;
  }
  for (std::uint64_t page : opened_) guard_->unprotect(page);
  opened_.clear();
}

void TranslationStore::openForStore(std::uint64_t ramPage) {
  std::scoped_lock lock(mutex_);
  if (memory_.codePages()[ramPage].load(std::memory_order_relaxed) == 0) {  // others were faster
    guard_->unprotect(ramPage);
    return;
  }
  invalidatePageLocked(ramPage);
  endInvalidationLocked();
}

/// Loops inside a dropped translation are not cut by unlinking. Only when nobody runs it any more may stores to the
/// pages go unnoticed: it could be what it stores to itself. And who has waited for this store to be done, as
/// cross-modifying code does, must not find itself in what was dropped.
void TranslationStore::endInvalidationLocked() {
  invalidations_.fetch_add(1, std::memory_order_acq_rel);
  leaveAllLocked();
  awaitLeavingLocked();
  for (std::uint64_t page : opened_) guard_->unprotect(page);
  opened_.clear();
}

/// After leaveAllLocked(): until every other CPU has taken its signal, which it does before its next instruction once
/// it has been interrupted.
void TranslationStore::awaitLeavingLocked() const {
  if (!othersInside()) return;
  if (membarrier_ && hostCall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return;
  // Taking away the right to write interrupts all that have the address space, too.
  void* page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  *static_cast<volatile char*>(page) = 1;
  ::mprotect(page, kPageSize, PROT_READ);
  ::munmap(page, kPageSize);
}

std::uint64_t TranslationStore::granulesLocked(std::uint64_t ramPage) const {
  std::uint64_t granules = 0;
  for (PageUnit* u = byRamPage_[ramPage % kHashSize]; u; u = u->nextByRamPage) {
    if (u->ramPage == ramPage) granules |= u->granules;
  }
  return granules;
}

void TranslationStore::invalidatePageLocked(std::uint64_t ramPage) {
  for (PageUnit* u = byRamPage_[ramPage % kHashSize]; u; u = u->nextByRamPage) {
    if (u->ramPage != ramPage || u->granules == 0) continue;
    for (PageUnit* before = u->joinedBy; before; before = before->nextJoined) dropJoinedLocked(*before);
    for (Translation* t = u->translations.load(std::memory_order_relaxed); t;
         t = t->next.load(std::memory_order_relaxed)) {
      t->dead.store(true, std::memory_order_release);
      for (unsigned i = 0; i < t->linkCount; ++i) {
        Link& link = t->links[i];
        if (!link.linkedTo) continue;
        cache_->setRel32(link.rel32, link.stub);
        link.linkedTo = nullptr;
      }
    }
    u->translations.store(nullptr, std::memory_order_release);
    u->ranges.store(nullptr, std::memory_order_release);
    std::uint16_t offsets[kPageSize / 4];
    unsigned count = 0;
    for (unsigned offset = 0; offset < kPageSize; ++offset) {
      std::uint32_t entry = u->entry(offset);
      bool empty = entry == 0 || entry == static_cast<std::uint32_t>(thunks_.indirectMiss);
      if ((u->granules >> (offset >> 6) & 1) == 0 || empty) continue;
      offsets[count++] = static_cast<std::uint16_t>(offset);
      if (count == kPageSize / 4) {
        setEntriesLocked(*u, {offsets, count}, 0);
        count = 0;
      }
    }
    if (count != 0) setEntriesLocked(*u, {offsets, count}, 0);
    u->granules = 0;
  }
  // Followers know before they may let their programs store to the page: until then it is neither open nor guarded.
  memory_.codePages()[ramPage].store(1, std::memory_order_seq_cst);
  for (CodeFollower* follower : followers_) follower->codeWritten(ramPage, ~std::uint64_t{0});
  memory_.codePages()[ramPage].store(0, std::memory_order_seq_cst);
  opened_.push_back(ramPage);
  ++counters_.invalidatedPages;
}

namespace {
bool isIn(const Translation& t, std::uint64_t host) {
  return host - t.hot < t.hotSize || host - t.cold < t.coldSize;
}
}  // namespace

/// Drops those of the unit's translations that are meant.
template <class Predicate>
void TranslationStore::dropLocked(PageUnit& unit, Predicate isMeant) {
  std::atomic<Translation*>* place = &unit.translations;
  while (Translation* t = place->load(std::memory_order_relaxed)) {
    if (!isMeant(*t)) {
      place = &t->next;
      continue;
    }
    t->dead.store(true, std::memory_order_release);
    place->store(t->next.load(std::memory_order_relaxed), std::memory_order_release);
    dropRangeLocked(unit, *t);
    detachLocked(*t);
  }
}

void TranslationStore::dropRangeLocked(PageUnit& unit, const Translation& t) {
  RangeList* list = unit.ranges.load(std::memory_order_relaxed);
  std::uint32_t count = list ? list->count.load(std::memory_order_relaxed) : 0, number = cache_->numberOf(&t);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (list->all()[i].where == number) list->all()[i].length = 0;
  }
}

void TranslationStore::dropJoinedLocked(PageUnit& unit) {
  dropLocked(unit, [](const Translation& t) { return t.crossesPage; });
}

/// Nothing leads to or from a dead translation any more.
void TranslationStore::detachLocked(const Translation& dead) {
  const PageUnit& unit = *dead.unit;
  auto cut = [this](Link& link) {
    cache_->setRel32(link.rel32, link.stub);
    link.linkedTo = nullptr;
  };
  for (unsigned i = 0; i < dead.linkCount; ++i) {
    if (dead.links[i].linkedTo) cut(dead.links[i]);
  }
  for (PageUnit* u = byRamPage_[unit.ramPage % kHashSize]; u; u = u->nextByRamPage) {
    if (u->ramPage != unit.ramPage) continue;
    for (Translation* t = u->translations.load(std::memory_order_relaxed); t;
         t = t->next.load(std::memory_order_relaxed)) {
      for (unsigned i = 0; i < t->linkCount; ++i) {
        if (t->links[i].linkedTo == &dead) cut(t->links[i]);
      }
    }
  }
  for (unsigned offset = dead.pageOffset; offset < kPageSize; ++offset) {
    auto at = static_cast<std::uint16_t>(offset);
    if (isIn(dead, unit.entry(offset))) setEntriesLocked(*dead.unit, {&at, 1}, 0);
  }
}

void TranslationStore::noteMisaligned(const Place& place) {
  constexpr std::uint64_t bytes = kPageSize / 8;
  std::scoped_lock lock(mutex_);
  Translation& t = *place.translation;
  if (needsReset_ || t.dead) return;
  PageUnit& unit = *t.unit;
  if (!unit.misaligned) unit.misaligned = static_cast<std::uint64_t*>(cache_->allocate(bytes));
  unsigned offset = place.record.value;
  if (!unit.misaligned || offset >= kPageSize) return;
  unit.misaligned[offset >> 6] |= std::uint64_t{1} << (offset & 63);
  dropLocked(unit, [&t](const Translation& other) { return &other == &t; });
  ++counters_.realigned;
}

void TranslationStore::join(PageUnit& unit, PageUnit& next) {
  std::scoped_lock lock(mutex_);
  if (needsReset_ || unit.nextPage == &next || unit.joins == kMaxJoins) return;
  if (unit.nextPage) {
    PageUnit** place = &unit.nextPage->joinedBy;
    while (*place != &unit) place = &(*place)->nextJoined;
    *place = unit.nextJoined;
  }
  ++unit.joins;
  unit.nextPage = &next;
  unit.nextJoined = next.joinedBy;
  next.joinedBy = &unit;
  dropJoinedLocked(unit);
}

void TranslationStore::leaveAllLocked() {
  for (CodeUser* user : users_) {
    if (user && user->inside.load(std::memory_order_seq_cst) != 0) user->leave(*user);
  }
}

void TranslationStore::addFollower(CodeFollower& follower) {
  std::scoped_lock lock(mutex_);
  followers_.push_back(&follower);
}

void TranslationStore::removeFollower(CodeFollower& follower) {
  std::scoped_lock lock(mutex_);
  std::erase(followers_, &follower);
}

bool TranslationStore::makeRoomForFollowers() {
  std::uint64_t bytes = followerBytes_.load(std::memory_order_relaxed);
  if (bytes >= options_.codeCacheBytes / 2) return false;
  std::scoped_lock lock(mutex_);
  if (!cache_->hasRoom(counters_.entryTableBytes + bytes)) needsReset_ = true;
  return true;
}

/// Where another vCPU is about to, that is waited for: the page may be writable in an executor until then.
bool TranslationStore::guardCode(std::uint64_t ramPage) {
  if (memory_.codePages()[ramPage].load(std::memory_order_acquire) == kGuarded) return true;
  std::scoped_lock lock(mutex_);
  return guardPageLocked(ramPage);
}

void TranslationStore::addUser(CodeUser& user) {
  std::scoped_lock lock(mutex_);
  for (CodeUser*& place : users_) {
    if (place) continue;
    place = &user;
    return;
  }
}

void TranslationStore::removeUser(CodeUser& user) {
  std::scoped_lock lock(mutex_);
  for (CodeUser*& place : users_) {
    if (place == &user) place = nullptr;
  }
}

namespace {
std::uint64_t nanoseconds(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}
}  // namespace

void TranslationStore::trimIfIdle() {
  if (followerBytes_.load() != 0) return;  // executors have run lately, and their time is not this process's
  std::uint64_t now = nanoseconds(CLOCK_MONOTONIC);
  if (!idleTrim_.isIdle(now, [] { return nanoseconds(CLOCK_PROCESS_CPUTIME_ID); })) return;
  std::scoped_lock lock(mutex_);
  if (cache_->usedBytes() + counters_.entryTableBytes <= kWorthTrimming) return;
  needsReset_ = true;
  idleTrim_.noteTrim(now);
}

void TranslationStore::helpReset() {
  {
    std::scoped_lock lock(mutex_);
    if (!needsReset_) return;
    bool allOutside = true;
    for (CodeUser* user : users_)
      allOutside = allOutside && (!user || user->inside.load(std::memory_order_seq_cst) == 0);
    if (allOutside) {
      std::vector<bool> kept(memory_.backingSize() >> 12);
      bool dropsAll = std::exchange(hostIsFull_, false);
      for (const CodeFollower* follower : followers_) {
        if (!dropsAll) follower->addKeptPages(kept);
      }
      keptPages_ = 0;
      for (std::uint64_t page = 0; page < kept.size(); ++page) {
        if (memory_.codePages()[page].load(std::memory_order_relaxed) == 0) continue;
        if (kept[page]) ++keptPages_;
        if (kept[page]) continue;
        for (CodeFollower* follower : followers_) {
          if (dropsAll) follower->codeWritten(page, ~std::uint64_t{0});
        }
        memory_.codePages()[page].store(0, std::memory_order_seq_cst);
        guard_->unprotect(page);
      }
      cache_->reset();
      ::madvise(reinterpret_cast<void*>(entryTables_), kMaxUnits * kEntryTableBytes, MADV_DONTNEED);
      std::memset(static_cast<void*>(units_), 0, unitCount_ * sizeof(PageUnit*));
      std::memset(static_cast<void*>(byKey_), 0, kHashSize * sizeof(PageUnit*));
      std::memset(static_cast<void*>(byRamPage_), 0, kHashSize * sizeof(PageUnit*));
      unitCount_ = 0;
      counters_.entryTableBytes = guardedPages_ = 0;
      ++counters_.resets;
      generation_.fetch_add(1, std::memory_order_acq_rel);
      needsReset_.store(false, std::memory_order_seq_cst);
      return;
    }
    leaveAllLocked();
  }
  ::sched_yield();
}

}  // namespace lodge::translate
