// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_memory.h"

#include <sys/mman.h>

namespace lodge::translate {

using namespace x86;

namespace {
constexpr std::uint64_t kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 32, kDirty = 64, kLargePage = 128;
constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;
constexpr std::uint64_t kMostRuns = 64, kMostAsked = 256;  ///< at one fault; before other commands have room
constexpr std::uint64_t kLowerHalf = 0x7fff'ffff'f000;
}  // namespace

bool lookAtPage(const Cpu& cpu, std::uint64_t linear, PageLook& out, std::uint64_t* table4K) {
  const GuestMemory& memory = *cpu.memory;
  std::uint64_t table = cpu.state.cr3 & kAddress;
  bool writable = true;
  out.noExecute = false;
  out.accessed = true;
  for (unsigned level = 4; level-- > 0;) {
    unsigned shift = 12 + 9 * level;
    std::uint64_t offset = memory.offsetOf(Gpa{table + 8 * (linear >> shift & 511)});
    if (offset == GuestMemory::kNoOffset) return false;
    std::uint64_t entry =
        __atomic_load_n(reinterpret_cast<std::uint64_t*>(memory.deviceView() + offset), __ATOMIC_RELAXED);
    if ((entry & (kPresent | kUser)) != (kPresent | kUser)) return false;
    out.writableAbove = writable;
    bool reserved =
        (level == 3 && (entry & kLargePage) != 0) || ((entry & kNoExecute) != 0 && (cpu.state.efer & efer::nxe) == 0);
    if (reserved) return false;
    writable = writable && (entry & kWritable) != 0;
    out.accessed = out.accessed && (entry & kAccessed) != 0;
    out.noExecute = out.noExecute || (entry & kNoExecute) != 0;
    if (level != 0 && (level == 3 || (entry & kLargePage) == 0)) {
      table = entry & kAddress;
      if (table4K) *table4K = table;
      continue;
    }
    std::uint64_t size = std::uint64_t{1} << shift;
    constexpr std::uint64_t kPat = 0x1000;
    if (level != 0 && (entry & kAddress & (size - 1) & ~kPat) != 0) return false;  // reserved
    std::uint64_t gpa = (entry & kAddress & ~(size - 1)) | (linear & (size - 1) & ~kPageMask);
    out.offset = memory.offsetOf(Gpa{gpa});
    out.size = size;
    out.writable = writable;
    out.dirty = (entry & kDirty) != 0;
    return out.offset != GuestMemory::kNoOffset;
  }
  return false;
}

ExecutorMemory::ExecutorMemory(ExecutorProcess& process, GuestMemory& memory)
    : process_(process),
      memory_(memory),
      written_(static_cast<std::uint8_t*>(std::calloc(memory.backingSize() >> 12, 1))) {}

bool ExecutorMemory::maySeeWrites(std::uint64_t offset) const {
  return memory_.codePages()[offset >> 12].load(std::memory_order_seq_cst) == 0 && !memory_.isVideoOffset(offset) &&
         !memory_.isRomOffset(offset);
}

void ExecutorMemory::noteWritable(std::uint64_t offset, std::uint64_t length) {
  for (std::uint64_t at = offset; at < offset + length; at += kPageSize)
    __atomic_store_n(&written_[at >> 12], std::uint8_t{1}, __ATOMIC_SEQ_CST);
}

void ExecutorMemory::setPage(std::uint64_t linear, std::uint64_t offset, bool writable) {
  pages_[linear] = {offset, writable};
  if (writable) writers_.emplace(offset >> 12, linear);
}

void ExecutorMemory::show(std::uint64_t linear, std::uint64_t length, std::uint64_t offset, bool writable,
                          bool executable) {
  ++changes_;
  std::uint64_t protection = PROT_READ | (writable ? PROT_WRITE : 0) | (executable ? PROT_EXEC : 0);
  if (!process_.ask({linear, length, offset, protection})) overflow_ = true;
}

void ExecutorMemory::hide(std::uint64_t linear, std::uint64_t length) {
  ++changes_;
  if (!process_.ask({linear, length, ExecutorCommand::kNothing, 0})) overflow_ = true;
}

bool ExecutorMemory::fillLarge(Cpu& cpu, std::uint64_t linear, const PageTranslation& page, bool writable) {
  std::uint64_t first = linear & ~(kLarge - 1), gpa = page.gpa & ~(kLarge - 1);
  std::uint64_t offset = cpu.offsetOf(Gpa{gpa});
  if (offset == GuestMemory::kNoOffset || cpu.offsetOf(Gpa{gpa + kLarge - 1}) != offset + kLarge - 1) return false;
  bool overlaps = first < process_.base() + EXECUTOR_BYTES && first + kLarge > process_.base();
  if (offset + kLarge > memory_.size() || overlaps) return false;
  // Marked first: whoever begins to watch a page sees this, or is seen here.
  if (writable) noteWritable(offset, kLarge);
  for (std::uint64_t at = offset; at < offset + kLarge; at += kPageSize) {
    if (!maySeeWrites(at)) return false;
  }
  show(first, kLarge, offset, writable);
  large_[first] = {offset, writable};
  if (page.pageSize > kLarge) cuts_.push_back(first);
  return true;
}

bool ExecutorMemory::fill(Cpu& cpu, std::uint64_t linear, bool write) {
  linear &= ~kPageMask;
  if (linear >= kLowerHalf || process_.covers(linear)) return false;
  PageTranslation page;
  if (!x86::translate(cpu, linear, write ? Access::write : Access::read, Privilege::current, page)) {
    cpu.exception.valid = false;  // the interpreter finds it again
    return false;
  }
  std::uint64_t offset = cpu.offsetOf(Gpa{page.gpa});
  if (offset == GuestMemory::kNoOffset) return false;
  bool lands = cpu.writableOffsetOf(Gpa{page.gpa}) == offset;
  bool writable = page.writable && page.dirty && lands;
  if (page.pageSize >= kLarge && fillLarge(cpu, linear, page, writable)) return true;
  if (writable) {
    noteWritable(offset, kPageSize);
    writable = maySeeWrites(offset);
  }
  if (write && !writable) return false;
  if (changes_ > kMostChanges) dropAll();
  if (page.pageSize > kPageSize) cuts_.push_back(linear);
  setPage(linear, offset, writable);
  show(linear, kPageSize, offset, writable);
  if (lands) fillAround(cpu, linear);
  return true;
}

bool ExecutorMemory::fillCode(Cpu& cpu, std::uint64_t linear, std::uint64_t offset) {
  if (linear >= kLowerHalf || process_.covers(linear)) return false;
  PageLook look{};
  if (!lookAtPage(cpu, linear, look) || look.noExecute || look.offset != offset) return false;
  if (changes_ > kMostChanges) dropAll();
  if (look.size > kPageSize) cuts_.push_back(linear);
  if (auto large = large_.find(linear & ~(kLarge - 1)); large != large_.end()) {
    hide(large->first, kLarge);
    large_.erase(large);
  }
  pages_[linear] = {offset, false, true};
  show(linear, kPageSize, offset, false, true);
  return true;
}

/// What the same page table says of other pages that the guest has used already: each would be a fault of its own.
void ExecutorMemory::fillAround(Cpu& cpu, std::uint64_t linear) {
  const GuestMemory& memory = memory_;
  PageLook look{};
  std::uint64_t table = 0;
  if (!lookAtPage(cpu, linear, look, &table) || look.size != kPageSize) return;
  std::uint64_t tableOffset = memory.offsetOf(Gpa{table});
  if (tableOffset == GuestMemory::kNoOffset) return;
  auto* entries = reinterpret_cast<std::uint64_t*>(memory.deviceView() + tableOffset);
  std::uint64_t first = linear & ~(kLarge - 1);
  if (first < process_.base() + EXECUTOR_BYTES && first + kLarge > process_.base()) return;
  constexpr std::uint64_t wanted = kPresent | kUser | kAccessed;
  // A run: neighbours that lie next to each other in RAM, too.
  std::uint64_t start = 0, length = 0, runOffset = 0, shown = 0;
  bool runWritable = false;
  auto end = [&] {
    if (length != 0) show(start, length, runOffset, runWritable);
    if (length != 0) ++shown;
    length = 0;
  };
  for (unsigned n = 0; n < 512 && shown < kMostRuns && process_.asked() < kMostAsked; ++n) {
    std::uint64_t entry = __atomic_load_n(&entries[n], __ATOMIC_RELAXED), at = first + n * kPageSize;
    bool taken = (entry & wanted) == wanted && !pages_.contains(at);
    std::uint64_t offset = taken ? memory.offsetOf(Gpa{entry & kAddress}) : GuestMemory::kNoOffset;
    if (offset == GuestMemory::kNoOffset || offset >= memory_.size()) {
      end();
      continue;
    }
    bool writable = look.writableAbove && (entry & (kWritable | kDirty)) == (kWritable | kDirty);
    if (writable) {
      noteWritable(offset, kPageSize);
      writable = maySeeWrites(offset);
    }
    if (length != 0 && (offset != runOffset + length || writable != runWritable)) end();
    if (length == 0) {
      start = at;
      runOffset = offset;
      runWritable = writable;
    }
    length += kPageSize;
    setPage(at, offset, writable);
  }
  end();
}

void ExecutorMemory::dropOne(std::uint64_t linear) {
  if (pages_.erase(linear) != 0) hide(linear, kPageSize);
  std::uint64_t first = linear & ~(kLarge - 1);
  if (large_.erase(first) != 0) hide(first, kLarge);
}

void ExecutorMemory::dropPage(std::uint64_t linear) {
  constexpr unsigned kLargest = 30;  // 1 GiB
  dropOne(linear & ~kPageMask);
  std::erase_if(cuts_, [&](std::uint64_t cut) {
    if (cut >> kLargest != linear >> kLargest) return false;
    dropOne(cut);
    return true;
  });
}

bool ExecutorMemory::isStill(const Cpu& cpu, std::uint64_t linear, const Shown& shown, std::uint64_t size) {
  PageLook look{};
  if (!lookAtPage(cpu, linear, look) || look.offset != shown.offset || !look.accessed || look.size < size) return false;
  return (!shown.writable || (look.writable && look.dirty)) && (!shown.executable || !look.noExecute);
}

void ExecutorMemory::revalidate(const Cpu& cpu) {
  auto check = [&](std::unordered_map<std::uint64_t, Shown>& all, std::uint64_t size) {
    for (auto at = all.begin(); at != all.end();) {
      if (isStill(cpu, at->first, at->second, size)) {
        ++at;
      } else {
        hide(at->first, size);
        at = all.erase(at);
      }
    }
  };
  check(pages_, kPageSize);
  check(large_, kLarge);
  if (overflow_) dropAll();
}

void ExecutorMemory::protect(std::uint64_t ramPage) {
  std::uint64_t offset = ramPage << 12;
  auto [first, last] = writers_.equal_range(ramPage);
  for (auto at = first; at != last; ++at) {
    auto page = pages_.find(at->second);
    if (page == pages_.end() || page->second.offset != offset || !page->second.writable) continue;
    hide(page->first, kPageSize);
    pages_.erase(page);
  }
  writers_.erase(ramPage);
  for (auto at = large_.begin(); at != large_.end();) {
    if (offset - at->second.offset < kLarge) {
      hide(at->first, kLarge);
      at = large_.erase(at);
    } else {
      ++at;
    }
  }
  __atomic_store_n(&written_[ramPage], std::uint8_t{0}, __ATOMIC_SEQ_CST);
}

void ExecutorMemory::dropAll() {
  pages_.clear();
  large_.clear();
  writers_.clear();
  cuts_.clear();
  overflow_ = false;
  changes_ = 0;
  process_.forgetAsked();
  hide(0, process_.base());
  std::uint64_t end = process_.base() + EXECUTOR_BYTES;
  hide(end, kLowerHalf - end);
}

}  // namespace lodge::translate
