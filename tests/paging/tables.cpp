// SPDX-License-Identifier: Apache-2.0
// The page tables of the guest of machine.h.
#include <algorithm>

#include "tests/paging/machine.h"

namespace lodge::paging {

namespace {
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kAccessedDirty = 0x60, kGlobal = 0x100;

Layout withPages(Layout layout) {
  for (std::uint64_t region : layout.regions)
    for (std::uint64_t slot : {region, region + layout.slotBytes()})
      for (unsigned page : layout.slotPages) layout.pages.push_back(slot + page * kPageSize);
  return layout;
}
}  // namespace

const Layout& Layout::of(Paging paging) {
  constexpr std::uint64_t kernel32 = 0xc000'0000, user32 = 0xd000'0000;
  constexpr std::array<std::uint64_t, 3> regions32 = {0x1000'0000, 0x5000'0000, 0x9000'0000};
  static const Layout bits32 =
      withPages({Paging::bits32, 1, 10, 4, kernel32, user32, regions32, {0, 1, 2, 1022, 1023}, {}});
  static const Layout pae = withPages({Paging::pae, 2, 9, 8, kernel32, user32, regions32, kPages, {}});
  static const Layout bits64 = withPages({Paging::bits64, 3, 9, 8, kKernelLinear, kUserLinear, kRegions, kPages, {}});
  return paging == Paging::bits32 ? bits32 : paging == Paging::pae ? pae : bits64;
}

int Layout::pageAt(std::uint64_t linear) const {
  auto at = std::find(pages.begin(), pages.end(), linear & ~kPageMask);
  return at == pages.end() ? -1 : static_cast<int>(at - pages.begin());
}

std::uint64_t Machine::entry(std::uint64_t slot) const {
  std::uint64_t value = read(slot);
  return layout_.entryBytes == 8 ? value : value & 0xffff'ffff;
}

void Machine::setEntry(std::uint64_t slot, std::uint64_t value) {
  if (layout_.entryBytes == 8) {
    write(slot, value);
  } else {
    (void)memory_->writeObject(Gpa{slot}, static_cast<std::uint32_t>(value));
  }
}

std::uint64_t Machine::allocate() {
  std::uint64_t table = next_;
  next_ += kPageSize;
  return table;
}

std::uint64_t Machine::slotOf(unsigned space, std::uint64_t linear, int level) const {
  std::uint64_t table = roots_[space];
  for (int at = layout_.top;; --at) {
    std::uint64_t index = layout_.index(linear, at);
    if (layout_.paging == Paging::pae && at == 2) index &= 3;
    std::uint64_t slot = table + index * layout_.entryBytes;
    if (at == level) return slot;
    table = tables_.at(slot);
  }
}

/// The PTE's slot; tables that are missing on the way are made.
std::uint64_t Machine::make(unsigned space, std::uint64_t linear) {
  for (int level = layout_.top; level > 0; --level) {
    std::uint64_t slot = slotOf(space, linear, level);
    if (tables_.contains(slot)) continue;
    tables_[slot] = allocate();
    bool pdpte = layout_.paging == Paging::pae && level == 2;  // most other bits are reserved
    setEntry(slot, tables_[slot] | kPresent | (pdpte ? 0 : kWrite | kUserBit | kAccessedDirty));
  }
  return slotOf(space, linear, 0);
}

/// The other spaces' entries in the root, and so all below, are the first one's.
void Machine::share(std::uint64_t linear) {
  (void)make(0, linear);
  std::uint64_t first = slotOf(0, linear, layout_.top);
  for (unsigned space = 1; space < kSpaces; ++space) {
    std::uint64_t slot = slotOf(space, linear, layout_.top);
    tables_[slot] = tables_[first];
    setEntry(slot, entry(first));
  }
}

void Machine::buildTables() {
  // A PAE root needs 32 bytes and their alignment only.
  for (std::uint64_t& root : roots_) root = allocate() + (layout_.paging == Paging::pae ? 0x5a0 : 0);
  for (std::uint64_t linear : {layout_.kernel, layout_.tables(), layout_.regions[1], layout_.regions[2]}) share(linear);
  for (std::uint64_t linear : {layout_.regions[1], layout_.regions[2]}) share(linear + layout_.slotBytes());
  for (unsigned page = 0; page < 16; ++page)
    setEntry(make(0, layout_.kernel + page * kPageSize),
             (kKernel + page * kPageSize) | kPresent | kWrite | kAccessedDirty | kGlobal);
  for (std::uint64_t at = 0; at < kTablesEnd; at += kPageSize)
    setEntry(make(0, layout_.tables() + at), at | kPresent | kWrite | kAccessedDirty);
  for (unsigned space = 0; space < kSpaces; ++space) {
    for (unsigned page = 0; page < 8; ++page)
      setEntry(make(space, layout_.user + page * kPageSize),
               (kUser + page * kPageSize) | kPresent | kWrite | kUserBit | kAccessedDirty);
    for (std::uint64_t slot : {layout_.regions[0], layout_.regions[0] + layout_.slotBytes()}) (void)make(space, slot);
  }
}

}  // namespace lodge::paging
