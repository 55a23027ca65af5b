// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "engine/translate/block.h"
#include "engine/translate/code_cache.h"
#include "engine/translate/code_guard.h"
#include "engine/translate/code_map.h"
#include "engine/translate/counted_mutex.h"
#include "engine/translate/executor_seats.h"
#include "engine/translate/idle_trim.h"
#include "engine/translate/perf_map.h"
#include "engine/translate/rewriter.h"
#include "memory/guest_memory.h"

namespace lodge::translate {

/// Somebody who runs translated code and must be told to leave it: a vCPU.
struct CodeUser {
  /// Nonzero while the thread may hold addresses of translated code.
  std::atomic<std::uint32_t> inside{0};
  /// Makes the thread leave translated code soon. Any thread.
  void (*leave)(CodeUser& user) = nullptr;
};

/// Somebody else who keeps translated code of guest RAM, in a form of his own: an executor. Called with the store
/// locked, by any thread.
class CodeFollower {
 public:
  virtual ~CodeFollower() = default;
  /// Nobody may write to the RAM page unnoticed when this returns.
  virtual void pageGuarded(std::uint64_t ramPage) = 0;
  /// These 64-byte pieces of a guarded page have changed, or are not guarded any more. Whether it has code of others of
  /// the page's, so that it must stay guarded.
  virtual bool codeWritten(std::uint64_t ramPage, std::uint64_t granules) = 0;
  /// Adds the pages of RAM that it has code of: they stay guarded when the store forgets its own.
  virtual void addKeptPages(std::vector<bool>& pages) const = 0;
};

/// All translations of a machine: page units, the code cache, write protection, invalidation. Shared by its vCPUs.
///
/// Functions lock where they must; unless said otherwise they call libc, so guest vector state must be parked.
class TranslationStore : public CodeWriteObserver {
 public:
  struct Options {
    std::uint64_t codeCacheBytes;
    std::uint64_t features;    ///< CpuModel::features
    bool strictFlags = false;  ///< faults and interrupts see the exact arithmetic flags everywhere
    bool sharing = true;       ///< user code is translated once, not for every linear address (needs BMI2)
    bool returns = true;       ///< calls note where returns go (needs BMI2)
    bool strings = true;       ///< REP STOS and REP MOVS without the interpreter
    bool groups = true;        ///< one soft TLB probe for several accesses
    std::uint64_t tscRatio = x86::TscScale::kOne;  ///< Cpu::tscScale of all vCPUs
    bool perfMap = false;                          ///< names translations in /tmp/perf-PID.map
  };
  static Result<std::unique_ptr<TranslationStore>> create(GuestMemory& memory, const Options& options);
  ~TranslationStore() override;

  /// The unit of RAM page `ramPage` seen at linear page `page` in mode `key`, made if need be. Null: the cache is full.
  PageUnit* unitFor(std::uint64_t ramPage, std::uint64_t page, ModeKey key);
  /// The unit that owns an entry table. No lock, no libc.
  PageUnit* unitOfTable(std::uint64_t table) const { return units_[(table - entryTables_) / kEntryTableBytes]; }
  /// Host code for the instruction at `offset` of the unit's page, translated if need be. With `indirect`, indirect
  /// branches will find it from now on.
  struct Entry {
    std::uint64_t host = 0;  ///< 0: must be interpreted (or the cache is full: needsReset())
    Translation* owner = nullptr;
  };
  Entry entryFor(PageUnit& unit, unsigned offset, bool indirect);
  /// Whether the instruction lies in a translation, but where it cannot be entered (inside a group).
  bool isInsideGroup(const PageUnit& unit, unsigned offset) const;
  /// Host code of an instruction that is translated already and that indirect branches find; else 0. No lock, no libc.
  std::uint64_t knownEntry(const PageUnit& unit, unsigned offset) const {
    std::uint32_t entry = unit.entry(offset);
    return entry == static_cast<std::uint32_t>(thunks_.indirectMiss) || entry < kLowestCode ? 0 : entry;
  }
  /// Leads the direct branch whose stub CALLed from just before `exitAddress` to its target, which is translated if
  /// need be. `sharedPage`: Frame::page. `rip` is set to the guest's target in any case.
  Entry follow(std::uint64_t exitAddress, std::uint64_t sharedPage, std::uint64_t& rip);

  struct Place {
    Translation* translation;
    Record record;
  };
  /// The access of the instruction at `place` is misaligned too often for the test of alignment that it has.
  void noteMisaligned(const Place& place);
  /// An instruction of `unit` that goes on in the next linear page was executed; `next` is that page's unit. From now
  /// on the instruction is translated, too.
  void join(PageUnit& unit, PageUnit& next);
  /// Whether join() may still change something.
  static bool mayJoin(const PageUnit& unit, const PageUnit* next) {
    return unit.joins < kMaxJoins && (!next || unit.nextPage != next);
  }

  /// The translation and its record at a host address (no lock, no libc, signal-safe). False: not translated code.
  bool locate(std::uint64_t pc, Place& place) const;

  /// CodeWriteObserver: drops the translations of pages of which translated bytes were written.
  void guestCodeWritten(std::uint64_t offset, std::uint64_t length) override;
  /// Lets a store of C++'s own, which faulted, through: its page became code after C++ had looked. No translation of
  /// the page is left, as others' stores to it go unnoticed from now on. Signal handlers of stores to guest RAM only.
  void openForStore(std::uint64_t ramPage);
  /// Counts invalidations; a change means that translated code somewhere became stale. No lock, no libc.
  std::uint64_t invalidations() const { return invalidations_.load(std::memory_order_acquire); }

  void addFollower(CodeFollower& follower);
  void removeFollower(CodeFollower& follower);
  /// For followers: from now on stores to the page are noticed. False: the host refuses.
  bool guardCode(std::uint64_t ramPage);
  /// What theirs takes counts as the cache's. A half of that is the most they may have.
  void countFollowers(std::int64_t bytes) { followerBytes_.fetch_add(static_cast<std::uint64_t>(bytes)); }
  /// False: they must forget something. Where it is the store that has too much, that goes.
  bool makeRoomForFollowers();
  ExecutorSeats& executorSeats() { return executorSeats_; }

  // --- full flush. A user that is `inside` keeps it from happening.
  void addUser(CodeUser& user);
  void removeUser(CodeUser& user);
  /// When a vCPU goes to sleep: if the machine has done next to nothing for a while, its code goes.
  void trimIfIdle();
  bool needsReset() const { return needsReset_.load(std::memory_order_seq_cst); }
  /// Called by users that are not inside while needsReset(): empties the cache when all are outside. Returns at once or
  /// after a short wait; the caller tries again until needsReset() is false.
  void helpReset();
  /// Changes with every reset: what users know of code addresses is void.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

  /// Every translation that the guest instruction at `linear` is in, as lines of text: "guest ADDRESS: BYTES", and
  /// below it "  hot|cold ADDRESS KIND: BYTES" of the host. Empty if there is none. Any thread.
  std::string describe(std::uint64_t linear) const;

  CodeCache& cache() { return *cache_; }
  const CodeGuard& guard() const { return *guard_; }
  const Thunks& thunks() const { return thunks_; }
  std::uint64_t missTable() const { return missTable_; }
  /// Nothing is mapped below; incomplete entries lead there.
  static constexpr std::uint64_t kLowestCode = 16_MiB;
  struct Counters {
    std::uint64_t translations, loops, guestInstructions, guestBytes, units, invalidatedPages, resets, realigned;
    std::uint64_t entryTableBytes;  ///< now
  };
  Counters counters() const { return counters_; }
  CountedMutex::Counters lockCounters() const { return mutex_.counters(); }

 private:
  TranslationStore(GuestMemory& memory, const Options& options) : memory_(memory), options_(options) {}
  Status makeTables();
  Status makeThunks();
  PageUnit* findUnit(std::uint64_t ramPage, std::uint64_t page, ModeKey key) const;
  PageUnit* unitForLocked(std::uint64_t ramPage, std::uint64_t page, ModeKey key);
  PageUnit* makeUnitLocked(std::uint64_t ramPage, std::uint64_t page, ModeKey key);
  Translation* translateLocked(PageUnit& unit, unsigned offset, bool ungrouped);
  bool guardPageLocked(std::uint64_t ramPage);
  Translation* installLocked(PageUnit& unit, const Block& block, unsigned count, const Assembler& hot,
                             const Assembler& cold, const RewrittenCode& code, bool ungrouped);
  bool shares(ModeKey key) const { return options_.sharing && key.has(ModeKey::user); }
  template <class Look>
  bool eachRange(const PageUnit& unit, Look look) const;
  bool findEntry(const PageUnit& unit, unsigned offset, bool ungrouped, Entry& entry) const;
  bool addRangeLocked(PageUnit& unit, const Translation& t);
  void dropRangeLocked(PageUnit& unit, const Translation& t);
  Entry entryForLocked(PageUnit& unit, unsigned offset, bool ungrouped);
  void setEntriesLocked(PageUnit& unit, std::span<const std::uint16_t> offsets, std::uint64_t host);
  void noteEntryTable(PageUnit& unit, unsigned offset);
  void fillEntries(PageUnit& unit, unsigned tablePage);
  bool makePattern();
  bool mapPattern(std::uint64_t firstUnit);
  bool isAlone() const;
  bool othersInside() const;
  void invalidatePageLocked(std::uint64_t ramPage);
  void endInvalidationLocked();
  template <class Predicate>
  void dropLocked(PageUnit& unit, Predicate isMeant);
  /// Those that go on in the next page.
  void dropJoinedLocked(PageUnit& unit);
  void detachLocked(const Translation& dead);
  std::uint64_t granulesLocked(std::uint64_t ramPage) const;
  void leaveAllLocked();
  void awaitLeavingLocked() const;

  /// GuestMemory::codePages(): stores to the page are noticed, whoever makes them; 1 before that.
  static constexpr std::uint8_t kGuarded = 2;
  static constexpr unsigned kHashSize = 1 << 14;
  static constexpr std::uint32_t kMaxUnits = 1 << 16;
  static constexpr unsigned kMaxUsers = 64;
  static constexpr std::uint64_t kWorthTrimming = 16_MiB;
  static constexpr unsigned kMaxJoins = 8;

  GuestMemory& memory_;
  Options options_;
  std::unique_ptr<CodeCache> cache_;
  std::unique_ptr<CodeGuard> guard_;
  std::unique_ptr<PerfMap> perfMap_;  ///< if asked for
  Thunks thunks_{};
  std::uint64_t missTable_ = 0;
  std::uint64_t entryTables_ = 0;
  UniqueFd pattern_;            ///< entry tables full of the miss thunk, as they are mapped for new units
  bool patternMade_ = false;    ///< or tried
  bool patternMapped_ = false;  ///< for the newest units
  PageUnit** units_ = nullptr;  ///< by id
  std::uint32_t unitCount_ = 0;
  bool membarrier_ = false;
  std::vector<std::uint64_t> opened_;  ///< pages that were invalidated, and are still protected

  mutable CountedMutex mutex_;
  PageUnit** byKey_ = nullptr;
  PageUnit** byRamPage_ = nullptr;
  std::unique_ptr<Block> block_;  ///< work space of translateLocked()
  std::unique_ptr<GroupPlan> groups_;
  std::unique_ptr<LoopPlan> loops_;
  std::unique_ptr<RewrittenCode> rewritten_;
  CodeUser* users_[kMaxUsers] = {};
  std::vector<CodeFollower*> followers_;
  std::atomic<std::uint64_t> followerBytes_{0};
  ExecutorSeats executorSeats_;
  std::uint64_t guardedPages_ = 0;  ///< since all began anew
  std::uint64_t keptPages_ = 0;     ///< that followers had then
  bool hostIsFull_ = false;         ///< no page can be guarded any more: followers' go with the next reset, too
  Counters counters_{};

  IdleTrim idleTrim_;
  std::atomic<std::uint64_t> invalidations_{0};
  std::atomic<std::uint64_t> generation_{1};
  std::atomic<bool> needsReset_{false};
};

}  // namespace lodge::translate
