// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/translation_store.h"

#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/memory_file.h"
#include "base/trace.h"
#include "engine/translate/host_call.h"
#include "engine/translate/liveness.h"
#include "engine/translate/trampolines.h"
#include "memory/code_writes.h"

namespace lodge::translate {

namespace {
constexpr std::uint64_t kMissTableBytes = alignUp(kEntryTableBytes, kPageSize);
/// Entry tables that are mapped from the pattern at once.
constexpr std::uint64_t kPatternTables = 32;

void* mapNoReserve(std::uint64_t bytes) {
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  ::madvise(p, bytes, MADV_DONTFORK);  // no executor's business
  return p;
}
}  // namespace

Result<std::unique_ptr<TranslationStore>> TranslationStore::create(GuestMemory& memory, const Options& options) {
  auto store = std::unique_ptr<TranslationStore>(new TranslationStore(memory, options));
  store->options_.sharing = options.sharing && hostFeatures().bmi2;
  store->options_.returns = options.returns && hostFeatures().bmi2;
  if (Status made = store->makeTables(); !made) return std::move(made).error();
  auto cache = CodeCache::create(options.codeCacheBytes, options.perfMap);
  if (!cache) return std::move(cache).error();
  store->cache_ = std::move(*cache);
  auto guard = CodeGuard::create(memory, !isWithheld(HostFeature::userfaultfd));
  if (!guard) return std::move(guard).error();
  store->guard_ = std::move(*guard);
  if (Status made = store->makeThunks(); !made) return std::move(made).error();
  if (options.perfMap) {
    auto map = PerfMap::create();
    if (!map) return std::move(map).error();
    store->perfMap_ = std::move(*map);
  }
  store->block_ = std::make_unique<Block>();
  store->groups_ = std::make_unique<GroupPlan>();
  store->loops_ = std::make_unique<LoopPlan>();
  store->rewritten_ = std::make_unique<RewrittenCode>();
  store->membarrier_ =
      !isWithheld(HostFeature::membarrier) && hostCall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
  memory.setCodeWriteObserver(store.get());
  return store;
}

TranslationStore::~TranslationStore() {
  memory_.setCodeWriteObserver(nullptr);
  awaitCodeWrites();  // of disks, which go on while vCPUs stand still
  // Another engine may go on with this memory.
  for (std::uint64_t page = 0; guard_ && page < memory_.backingSize() >> 12; ++page) {
    if (memory_.codePages()[page].exchange(0) != 0) guard_->unprotect(page);
  }
  if (missTable_ != 0) ::munmap(reinterpret_cast<void*>(missTable_), kMissTableBytes);
  if (entryTables_ != 0) ::munmap(reinterpret_cast<void*>(entryTables_), kMaxUnits * kEntryTableBytes);
  if (units_) ::munmap(static_cast<void*>(units_), kMaxUnits * sizeof(PageUnit*));
  if (byKey_) ::munmap(static_cast<void*>(byKey_), kHashSize * sizeof(PageUnit*));
  if (byRamPage_) ::munmap(static_cast<void*>(byRamPage_), kHashSize * sizeof(PageUnit*));
}

Status TranslationStore::makeTables() {
  missTable_ = reinterpret_cast<std::uint64_t>(mapNoReserve(kMissTableBytes));
  entryTables_ = reinterpret_cast<std::uint64_t>(mapNoReserve(kMaxUnits * kEntryTableBytes));
  units_ = static_cast<PageUnit**>(mapNoReserve(kMaxUnits * sizeof(PageUnit*)));
  byKey_ = static_cast<PageUnit**>(mapNoReserve(kHashSize * sizeof(PageUnit*)));
  byRamPage_ = static_cast<PageUnit**>(mapNoReserve(kHashSize * sizeof(PageUnit*)));
  if (missTable_ == 0 || entryTables_ == 0 || !units_ || !byKey_ || !byRamPage_) {
    return Error::fromErrno(errno, "map the translator's tables")
        .withHint("raise `ulimit -v`, or use --engine interpret");
  }
  ::madvise(reinterpret_cast<void*>(entryTables_), kMaxUnits * kEntryTableBytes, MADV_DONTDUMP);
  return {};
}

Status TranslationStore::makeThunks() {
  auto thunk = [this](void (*function)()) { return cache_->thunk(reinterpret_cast<const void*>(function)); };
  thunks_.missRead = thunk(lodgeMissRead);
  thunks_.missWrite = thunk(lodgeMissWrite);
  thunks_.exitLink = thunk(lodgeExitLink);
  thunks_.exitStep = thunk(lodgeExitStep);
  thunks_.exitMisaligned = thunk(lodgeExitMisaligned);
  thunks_.mayCross[0] = thunk(lodgeMayCross2);
  thunks_.mayCross[1] = thunk(lodgeMayCross4);
  thunks_.mayCross[2] = thunk(lodgeMayCross8);
  thunks_.callStep = thunk(lodgeCallStep);
  thunks_.indirectMiss = thunk(lodgeIndirectMiss);
  thunks_.syscall = thunk(lodgeSyscall);
  thunks_.sysret = thunk(lodgeSysret);
  for (std::uint64_t i = 0; i < 4096; ++i) {
    storeLe(reinterpret_cast<void*>(missTable_ + i * kEntryStride), static_cast<std::uint32_t>(thunks_.indirectMiss));
  }
  return {};
}

namespace {
unsigned hashOf(std::uint64_t ramPage, std::uint64_t page, std::uint32_t key) {
  std::uint64_t h = (ramPage * 0x9e3779b97f4a7c15u) ^ (page >> 12) * 0xc2b2ae3d27d4eb4fu ^ key * 0x165667b19e3779f9u;
  return static_cast<unsigned>(h >> 40);
}
}  // namespace

PageUnit* TranslationStore::unitFor(std::uint64_t ramPage, std::uint64_t page, ModeKey key) {
  // Every process that starts comes here for every page of code that others have run before.
  if (PageUnit* unit = findUnit(ramPage, page, key)) return unit;
  std::scoped_lock lock(mutex_);
  return unitForLocked(ramPage, page, key);
}

/// Units are published whole, and only go when no vCPU is inside: no lock is needed to find one.
PageUnit* TranslationStore::findUnit(std::uint64_t ramPage, std::uint64_t page, ModeKey key) const {
  bool shared = shares(key);
  PageUnit** head = &byKey_[hashOf(ramPage, shared ? 0 : page, key.bits) % kHashSize];
  for (PageUnit* u = __atomic_load_n(head, __ATOMIC_ACQUIRE); u; u = u->nextByKey) {
    if (u->ramPage != ramPage || u->key != key.bits) continue;
    if (shared) __atomic_store_n(&u->page, page, __ATOMIC_RELAXED);  // what dumps show
    if (shared || u->page == page) return u;
  }
  return nullptr;
}

PageUnit* TranslationStore::unitForLocked(std::uint64_t ramPage, std::uint64_t page, ModeKey key) {
  PageUnit* unit = findUnit(ramPage, page, key);
  return unit ? unit : makeUnitLocked(ramPage, page, key);
}

/// One vCPU: nobody reads entries while they are written.
bool TranslationStore::isAlone() const {
  return std::count_if(std::begin(users_), std::end(users_), [](const CodeUser* u) { return u != nullptr; }) <= 1;
}

/// A file of entry tables full of the miss thunk, for private mappings: an entry that nobody set costs no memory, and
/// no signal when somebody branches there. What other CPUs might read half is 0 (setEntriesLocked()).
bool TranslationStore::makePattern() {
  patternMade_ = true;
  pattern_ = makeMemoryFile("lodge-entries");
  constexpr std::uint64_t bytes = kPatternTables * kEntryTableBytes;
  if (!pattern_ || ::ftruncate(pattern_.get(), static_cast<off_t>(bytes)) != 0) return false;
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pattern_.get(), 0);
  if (p == MAP_FAILED) return false;
  bool alone = isAlone();
  for (std::uint64_t at = 0; at + 4 <= bytes; at += kEntryStride) {
    if (alone || at % 8 <= 4)
      storeLe(static_cast<std::uint8_t*>(p) + at, static_cast<std::uint32_t>(thunks_.indirectMiss));
  }
  ::munmap(p, bytes);
  return true;
}

/// The entry tables of the units from `firstUnit` on. False: they are zeroes.
bool TranslationStore::mapPattern(std::uint64_t firstUnit) {
  if (!patternMade_ && !makePattern()) pattern_.reset();
  std::uint64_t bytes = std::min(kPatternTables, kMaxUnits - firstUnit) * kEntryTableBytes;
  if (!pattern_) return false;
  std::uint64_t at = entryTables_ + firstUnit * kEntryTableBytes;
  bool mapped = hostCall(SYS_mmap, at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                         static_cast<std::uint64_t>(pattern_.get()), 0) >= 0;
  if (mapped) hostCall(SYS_madvise, at, bytes, MADV_DONTFORK);
  return mapped;
}

PageUnit* TranslationStore::makeUnitLocked(std::uint64_t ramPage, std::uint64_t page, ModeKey key) {
  auto* unit = unitCount_ < kMaxUnits ? static_cast<PageUnit*>(cache_->allocate(sizeof(PageUnit))) : nullptr;
  if (!unit) {
    needsReset_ = true;
    return nullptr;
  }
  unit->ramPage = ramPage;
  unit->page = page;
  unit->key = key.bits;
  unit->isShared = shares(key);
  unit->id = unitCount_++;
  unit->entryTable = reinterpret_cast<std::uint8_t*>(entryTables_ + unit->id * kEntryTableBytes);
  if (unit->id % kPatternTables == 0) patternMapped_ = mapPattern(unit->id);
  unit->isFilled = patternMapped_;
  units_[unit->id] = unit;
  PageUnit*& head = byKey_[hashOf(ramPage, unit->isShared ? 0 : page, key.bits) % kHashSize];
  unit->nextByKey = head;
  __atomic_store_n(&head, unit, __ATOMIC_RELEASE);  // findUnit() reads it without the lock
  PageUnit*& ramHead = byRamPage_[ramPage % kHashSize];
  unit->nextByRamPage = ramHead;
  ramHead = unit;
  ++counters_.units;
  return unit;
}

/// Calls look(range) for the unit's translations, the newest first, until it is true.
template <class Look>
bool TranslationStore::eachRange(const PageUnit& unit, Look look) const {
  RangeList* list = unit.ranges.load(std::memory_order_acquire);
  for (std::uint32_t i = list ? list->count.load(std::memory_order_acquire) : 0; i-- > 0;) {
    if (look(list->all()[i])) return true;
  }
  return false;
}

bool TranslationStore::findEntry(const PageUnit& unit, unsigned offset, bool ungrouped, Entry& entry) const {
  return eachRange(unit, [&](const TranslationRange& r) {
    if (!r.covers(offset) || r.ungrouped != ungrouped) return false;
    auto* t = static_cast<Translation*>(cache_->dataAt(r.where));
    std::uint64_t host = t->entryFor(offset);
    if (host != 0) entry = {host, t};
    return host != 0;
  });
}

bool TranslationStore::isInsideGroup(const PageUnit& unit, unsigned offset) const {
  return eachRange(
      unit, [&](const TranslationRange& r) { return r.ungrouped == 0 && r.covers(offset) && offset != r.offset; });
}

/// Makes the translation findable. False: there is no memory for that.
bool TranslationStore::addRangeLocked(PageUnit& unit, const Translation& t) {
  RangeList* list = unit.ranges.load(std::memory_order_relaxed);
  std::uint32_t count = list ? list->count.load(std::memory_order_relaxed) : 0;
  if (!list || count == list->capacity) {
    constexpr std::uint32_t kFirst = 5;  // of 48 bytes
    std::uint32_t capacity = list ? 2 * list->capacity : kFirst;
    auto* larger = static_cast<RangeList*>(cache_->allocate(sizeof(RangeList) + capacity * sizeof(TranslationRange)));
    if (!larger) return false;
    for (std::uint32_t i = 0; i < count; ++i) larger->all()[i] = list->all()[i];
    larger->capacity = capacity;
    larger->count.store(count, std::memory_order_relaxed);
    unit.ranges.store(larger, std::memory_order_release);
    list = larger;
  }
  list->all()[count] = {cache_->numberOf(&t), t.pageOffset, t.guestBytes, t.ungrouped};
  list->count.store(count + 1, std::memory_order_release);
  return true;
}

TranslationStore::Entry TranslationStore::entryForLocked(PageUnit& unit, unsigned offset, bool ungrouped) {
  Entry entry;
  if (findEntry(unit, offset, ungrouped, entry)) return entry;
  Translation* made = translateLocked(unit, offset, ungrouped);
  return made ? Entry{made->hot, made} : Entry{};
}

TranslationStore::Entry TranslationStore::entryFor(PageUnit& unit, unsigned offset, bool indirect) {
  std::scoped_lock lock(mutex_);
  Entry entry = entryForLocked(unit, offset, false);
  if (indirect && entry.host != 0) {
    auto at = static_cast<std::uint16_t>(offset);
    setEntriesLocked(unit, {&at, 1}, entry.host);
  }
  return entry;
}

TranslationStore::Entry TranslationStore::follow(std::uint64_t exitAddress, std::uint64_t sharedPage,
                                                 std::uint64_t& rip) {
  constexpr std::uint64_t callBytes = 5;
  Translation* source = cache_->find(exitAddress - 1);
  Link* link = nullptr;
  for (unsigned i = 0; i < source->linkCount; ++i) {
    if (source->links[i].stub == exitAddress - callBytes) link = &source->links[i];
  }
  rip = source->unit->pageNow(sharedPage) + link->targetOffset;
  std::scoped_lock lock(mutex_);
  if (source->dead.load(std::memory_order_acquire)) return {};
  PageUnit* unit = source->unit;
  if (link->key != unit->key) unit = unitForLocked(unit->ramPage, unit->pageNow(sharedPage), ModeKey{link->key});
  if (!unit) return {};
  Entry entry = entryForLocked(*unit, link->targetOffset, link->ungrouped);
  if (entry.host != 0 && !link->linkedTo && !source->dead && !entry.owner->dead) {
    link->linkedTo = entry.owner;
    cache_->setRel32(link->rel32, entry.host);
  }
  return entry;
}

Translation* TranslationStore::translateLocked(PageUnit& unit, unsigned offset, bool ungrouped) {
  if (!cache_->hasRoom(counters_.entryTableBytes + followerBytes_.load(std::memory_order_relaxed))) {
    needsReset_ = true;
    return nullptr;
  }
  if (!guardPageLocked(unit.ramPage)) return nullptr;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(memory_.deviceView() + (unit.ramPage << 12));
  Block& block = *block_;
  PageUnit* next = unit.nextPage;
  if (next && !guardPageLocked(next->ramPage)) return nullptr;
  const auto* nextBytes =
      next ? reinterpret_cast<const std::uint8_t*>(memory_.deviceView() + (next->ramPage << 12)) : nullptr;
  block.isShared = unit.isShared;
  block.misaligned = unit.misaligned;
  block.goesOnAfterCalls = options_.returns && ModeKey{unit.key}.mode() != ExecMode::kernelAc;
  decodeBlock(block, bytes, unit.isShared ? 0 : unit.page, offset, ModeKey{unit.key}, options_.features, nextBytes);
  if (block.count == 0) return nullptr;
  if (next && block.crossesPage()) {
    block.nextTable = reinterpret_cast<std::uint64_t>(next->entryTable);
    next->granules |= 1;
  }
  solveLiveness(block, bytes, options_.features, options_.strictFlags);
  Assembler hot = cache_->hot();
  Assembler cold = cache_->cold();
  rewritten_->hotCount = rewritten_->coldCount = rewritten_->linkCount = rewritten_->loopCount = 0;
  if (ungrouped || !options_.groups) {
    *groups_ = GroupPlan{};
    loops_->count = 0;
  } else {
    planLoops(block, *loops_);
    planGroups(block, *groups_);
  }
  HostFeatures host = hostFeatures();
  host.strings = options_.strings;
  host.sharing = options_.sharing;
  host.returns = options_.returns;
  host.tscRatio = options_.tscRatio;
  Rewriter rewriter(block, *groups_, *loops_, hot, cold, thunks_, host, *rewritten_);
  unsigned count = rewriter.run();
  return installLocked(unit, block, count, hot, cold, *rewritten_, ungrouped);
}

/// From now on stores to the page are noticed. Marks first, protects, and only then may the bytes be read.
bool TranslationStore::guardPageLocked(std::uint64_t ramPage) {
  auto& mark = memory_.codePages()[ramPage];
  if (mark.load(std::memory_order_relaxed) != 0) return true;
  mark.store(1, std::memory_order_seq_cst);
  for (CodeFollower* follower : followers_) follower->pageGuarded(ramPage);
  if (!guard_->protect(ramPage)) {
    mark.store(0, std::memory_order_seq_cst);
    // The host has no room for one mapping more (vm.max_map_count): all begins anew, as with a full cache.
    // Executors' pages, which outlive a reset, may be most of them: then those go, too.
    constexpr std::uint64_t kWorthIt = 256;
    if (guardedPages_ >= kWorthIt || keptPages_ != 0) hostIsFull_ = needsReset_ = true;
    return false;
  }
  ++guardedPages_;
  // A device's store that is still on its way to memory looks at the mark after it.
  if (membarrier_) hostCall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  mark.store(kGuarded, std::memory_order_seq_cst);
  return true;
}

Translation* TranslationStore::installLocked(PageUnit& unit, const Block& block, unsigned count, const Assembler& hot,
                                             const Assembler& cold, const RewrittenCode& code, bool ungrouped) {
  // hasRoom() left enough for all of this.
  auto* t = static_cast<Translation*>(cache_->allocate(sizeof(Translation)));
  t->records = static_cast<Record*>(cache_->allocate((code.hotCount + code.coldCount) * sizeof(Record)));
  t->links = static_cast<Link*>(cache_->allocate(code.linkCount * sizeof(Link)));
  std::memcpy(t->records, code.hot.data(), code.hotCount * sizeof(Record));
  std::memcpy(t->records + code.hotCount, code.cold.data(), code.coldCount * sizeof(Record));
  for (unsigned i = 0; i < code.linkCount; ++i) {
    const auto& plan = code.links[i];
    t->links[i] = {nullptr,
                   static_cast<std::uint32_t>(plan.rel32),
                   static_cast<std::uint32_t>(plan.stub),
                   plan.key,
                   plan.targetOffset,
                   plan.ungrouped};
  }
  const GuestInstruction& first = block.instructions[0];
  const GuestInstruction& last = block.instructions[count - 1];
  t->unit = &unit;
  t->hot = hot.start();
  t->cold = cold.start();
  t->hotSize = hot.size();
  t->coldSize = cold.size();
  t->pageOffset = first.offset;
  t->guestBytes = static_cast<std::uint16_t>(last.offset + last.decoded.length - first.offset);
  t->instructions = static_cast<std::uint8_t>(count);
  t->ungrouped = ungrouped;
  t->crossesPage = block.instructions[count - 1].crossesPage;
  t->linkCount = static_cast<std::uint8_t>(code.linkCount);
  t->hotRecords = static_cast<std::uint16_t>(code.hotCount);
  t->coldRecords = static_cast<std::uint16_t>(code.coldCount);
  unit.granules |= block.dependsOn;
  cache_->commit(hot, cold);
  cache_->publish(t);
  if (perfMap_) perfMap_->note(*t);
  t->next.store(unit.translations.load(std::memory_order_relaxed), std::memory_order_relaxed);
  unit.translations.store(t, std::memory_order_release);
  if (!addRangeLocked(unit, *t)) needsReset_ = true;
  ++counters_.translations;
  counters_.loops += code.loopCount;
  counters_.guestInstructions += count;
  counters_.guestBytes += t->guestBytes;
  return t;
}

namespace {
/// Bytes of the entry that lie below the next multiple of 8; 4 or more: it can be read and written in one piece.
unsigned bytesBelowBoundary(const PageUnit& unit, unsigned offset) {
  return static_cast<unsigned>(8 - (reinterpret_cast<std::uint64_t>(unit.entryWord(offset)) & 7));
}
}  // namespace

/// Counts the host pages that the entry tables take, and fills each before its first entry.
void TranslationStore::noteEntryTable(PageUnit& unit, unsigned offset) {
  for (unsigned at : {offset * kEntryStride, offset * kEntryStride + 3}) {
    auto page = static_cast<unsigned>(at / kPageSize);
    auto bit = static_cast<std::uint8_t>(1u << page);
    if ((unit.tablePages & bit) != 0) continue;
    unit.tablePages |= bit;
    counters_.entryTableBytes += kPageSize;
    if (!unit.isFilled) fillEntries(unit, page);
  }
}

/// An entry that is 0 costs a signal when somebody branches there, the thunk a call. What other CPUs might read half
/// stays 0.
void TranslationStore::fillEntries(PageUnit& unit, unsigned tablePage) {
  bool alone = isAlone();
  auto thunk = static_cast<std::uint32_t>(thunks_.indirectMiss);
  auto first = static_cast<unsigned>((tablePage * kPageSize + kEntryStride - 1) / kEntryStride);
  for (unsigned offset = first; offset * kEntryStride + 4 <= (tablePage + 1) * kPageSize; ++offset) {
    if (alone || bytesBelowBoundary(unit, offset) >= 4)
      __atomic_store_n(unit.entryWord(offset), thunk, __ATOMIC_RELAXED);
  }
}

/// Other CPUs may read the entries at the same time, and one that crosses an 8-byte boundary could be seen half. So its
/// high part is nonzero only while its low part is whole: a torn value lies below 16 MiB, where nothing is mapped, and
/// faults.
void TranslationStore::setEntriesLocked(PageUnit& unit, std::span<const std::uint16_t> offsets, std::uint64_t host) {
  for (std::uint16_t offset : offsets) noteEntryTable(unit, offset);
  auto crosses = [&unit](std::uint16_t offset) { return bytesBelowBoundary(unit, offset) < 4; };
  auto* value = reinterpret_cast<const std::uint8_t*>(&host);
  auto writePart = [&](std::uint16_t offset, bool highPart, bool clear) {
    auto* at = reinterpret_cast<volatile std::uint8_t*>(unit.entryWord(offset));
    unsigned split = bytesBelowBoundary(unit, offset);
    unsigned first = highPart ? split : 0, end = highPart ? 4 : split;
    // The most significant byte goes first and comes last: whatever others see on the way lies below 16 MiB, too.
    for (unsigned i = end; clear && i-- > first;) at[i] = 0;
    for (unsigned i = first; !clear && i < end; ++i) at[i] = value[i];
  };
  // False where others could see what comes next before what came first.
  auto ordered = [&] {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return !othersInside() || (membarrier_ && hostCall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
  };
  bool anyCrosses = false, anyWasSet = false;
  for (std::uint16_t offset : offsets) {
    if (!crosses(offset)) {
      std::uint64_t whole = host != 0 ? host : thunks_.indirectMiss;
      __atomic_store_n(unit.entryWord(offset), static_cast<std::uint32_t>(whole), __ATOMIC_RELEASE);
      continue;
    }
    anyCrosses = true;
    if (unit.entry(offset) != 0) {
      anyWasSet = true;
      writePart(offset, true, true);
    }
  }
  if (!anyCrosses || (anyWasSet && !ordered())) return;  // incomplete entries take the slow path every time
  for (std::uint16_t offset : offsets) {
    if (crosses(offset)) writePart(offset, false, false);
  }
  if (host == 0 || !ordered()) return;
  for (std::uint16_t offset : offsets) {
    if (crosses(offset)) writePart(offset, true, false);
  }
}

bool TranslationStore::othersInside() const {
  unsigned inside = 0;
  for (const CodeUser* user : users_) {
    if (user && user->inside.load(std::memory_order_seq_cst) != 0) ++inside;
  }
  return inside > 1;
}

bool TranslationStore::locate(std::uint64_t pc, Place& place) const {
  Translation* t = cache_->find(pc);
  if (!t) return false;
  const Record* record = t->recordAt(pc);
  if (!record) return false;
  place = {t, *record};
  return true;
}

}  // namespace lodge::translate
