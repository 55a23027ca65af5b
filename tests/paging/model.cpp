// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/model.h"

#include <algorithm>

namespace lodge::paging {

namespace {
using namespace x86;
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kLarge = 0x80, kGlobal = 0x100, kNoExecute = 1ull << 63;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;
/// Of a PDPTE: SDM vol. 3, table 4-8.
constexpr std::uint64_t kPdpteReserved = 6 | 0x1e0 | kNoExecute;

constexpr std::uint64_t bits(unsigned low, unsigned high) {
  return high < low ? 0 : ((1ull << (high + 1)) - 1) & ~((1ull << low) - 1);
}

bool isLarge(const Machine& machine, const CpuModel& cpu, std::uint64_t entry, int level) {
  if ((entry & kLarge) == 0) return false;
  if (level == 2) return cpu.paging == Paging::bits64 && machine.model().gigabytePages;
  return level == 1 && (cpu.paging != Paging::bits32 || cpu.pse);
}

/// What an entry must not have: SDM vol. 3, tables 4-4, 4-9 and 4-15 to 4-18.
std::uint64_t reserved(const Machine& machine, const CpuModel& cpu, int level, bool large) {
  if (cpu.paging == Paging::bits32)
    return large ? bits(std::min(machine.model().physicalAddressBits, 40u) - 19, 21) : 0;
  if (large) return bits(13, level == 2 ? 29 : 20);
  return level >= 2 ? kLarge : 0;
}

/// The translation of a page may be cached by `cpu`, and is about to go.
void mark(const Machine& machine, CpuModel& cpu, unsigned space, unsigned p) {
  const Layout& layout = machine.layout();
  int level = cpu.paging == Paging::bits64 ? 3 : 1;
  std::uint64_t leaf = 0;
  for (;; --level) {
    leaf = machine.entry(machine.slotOf(space, layout.pages[p], level));
    if (level == 0 || isLarge(machine, cpu, leaf, level)) break;
  }
  CpuModel::Stale& s = cpu.stale[p];
  bool already = s.global || s.local != decltype(s.local){};
  std::uint64_t size = 1ull << layout.shift(level);
  s.size = already ? std::min(s.size, size) : size;
  s.local[cpu.pcid(space)] = true;
  if ((leaf & kGlobal) != 0) s.global = true;
}
}  // namespace

CpuModel::CpuModel(const Machine& machine, const MachineKind& kind)
    : paging(kind.paging),
      pcide(kind.pcide),
      pke(kind.keys),
      pse(kind.paging == Paging::bits32),
      stale(machine.layout().pages.size()),
      layout_(machine.layout()) {
  if (paging == Paging::pae) loadPdptes(machine, *this);
}

std::uint64_t CpuModel::cr0() const {
  return cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::pg | (wp ? cr0::wp : 0);
}

std::uint64_t CpuModel::cr4() const {
  return (paging == Paging::bits32 ? 0 : cr4::pae) | cr4::osfxsr | (paging == Paging::bits64 ? cr4::fsgsbase : 0) |
         (pcide ? cr4::pcide : 0) | (pke ? cr4::pke : 0) | (pge ? cr4::pge : 0) | (smep ? cr4::smep : 0) |
         (smap ? cr4::smap : 0) | (pse ? cr4::pse : 0);
}

void CpuModel::flushed(unsigned page, bool globalToo, unsigned ofPcid) {
  for (unsigned p = 0; p < stale.size(); ++p) {
    if (p != page && (layout_.pages[p] ^ layout_.pages[page]) >= stale[p].size) continue;
    stale[p].local[ofPcid] = false;
    if (globalToo) stale[p].global = false;
  }
}

void CpuModel::flushedPcid(unsigned ofPcid) {
  for (Stale& s : stale) s.local[ofPcid] = false;
}

void CpuModel::flushedLocal() {
  for (Stale& s : stale) s.local = {};
}

void CpuModel::flushedAll() {
  for (Stale& s : stale) s = {};
}

Walk walk(const Machine& machine, const CpuModel& cpu, std::uint64_t linear, Kind kind, bool user,
          bool accessCheckOff) {
  constexpr std::uint64_t kErrorPresent = 1, kErrorReserved = 8, kErrorFetch = 16, kErrorKey = 32;
  bool fetch = kind == Kind::execute;
  const Layout& layout = machine.layout();
  Walk w;
  // EFER.NXE is set.
  bool tellsFetch = cpu.paging != Paging::bits32 || cpu.smep;
  w.errorCode = (kind == Kind::write ? 2 : 0) | (user ? 4 : 0) | (fetch && tellsFetch ? kErrorFetch : 0);
  bool userPage = true, writable = true, noExecute = false;
  std::uint64_t table = machine.root(cpu.space), entry = 0;
  int level = layout.top;
  if (cpu.paging == Paging::pae) {
    std::uint64_t pdpte = cpu.pdpte[(linear >> 30) & 3];
    if ((pdpte & kPresent) == 0) return w;
    table = pdpte & kAddress;
    level = 1;
  }
  for (;; --level) {
    std::uint64_t slot = table + layout.index(linear, level) * layout.entryBytes;
    entry = machine.entry(slot);
    w.outside = w.outside || slot >= kTablesEnd;
    w.slots[w.levels++] = slot;
    if ((entry & kPresent) == 0) return w;
    bool large = isLarge(machine, cpu, entry, level);
    if ((entry & reserved(machine, cpu, level, large)) != 0) {
      w.errorCode |= kErrorPresent | kErrorReserved;
      return w;
    }
    userPage = userPage && (entry & kUserBit) != 0;
    writable = writable && (entry & kWrite) != 0;
    noExecute = noExecute || (entry & kNoExecute) != 0;
    table = entry & kAddress;
    if (level == 0 || large) break;
  }
  std::uint64_t size = 1ull << layout.shift(level);
  w.global = (entry & kGlobal) != 0;
  if (level == 1 && cpu.paging == Paging::bits32) table = (entry & ~(size - 1)) | (entry & bits(13, 20)) << 19;
  w.gpa = (table & ~(size - 1)) + (linear & (size - 1));
  bool keyed = false;
  if (cpu.pke && userPage && !fetch) {
    unsigned key = cpu.pkru >> (2 * ((entry >> 59) & 15));
    keyed = (key & 1) != 0 || ((key & 2) != 0 && kind == Kind::write && (user || cpu.wp));
  }
  bool refused = user ? !userPage : userPage && (fetch ? cpu.smep : cpu.smap && !accessCheckOff);
  refused = refused || (kind == Kind::write && !writable && (user || cpu.wp)) || (fetch && noExecute);
  if (refused || keyed) {
    w.errorCode |= kErrorPresent | (keyed ? kErrorKey : 0);
  } else {
    w.ok = true;
  }
  return w;
}

void markStale(const Machine& machine, CpuModel& cpu, std::uint64_t slot, int level, std::uint64_t before) {
  if ((before & kPresent) == 0) return;                 // what is not present is not cached
  if (cpu.paging == Paging::pae && level == 2) return;  // counts once it is loaded
  for (unsigned space = 0; space < kSpaces; ++space)
    for (unsigned p = 0; p < cpu.stale.size(); ++p)
      if (machine.slotOf(space, machine.layout().pages[p], level) == slot) mark(machine, cpu, space, p);
}

bool pdptesValid(const Machine& machine, unsigned space) {
  for (unsigned i = 0; i < 4; ++i) {
    std::uint64_t entry = machine.entry(machine.root(space) + 8 * i);
    if ((entry & kPresent) != 0 && (entry & kPdpteReserved) != 0) return false;
  }
  return true;
}

void loadPdptes(const Machine& machine, CpuModel& cpu) {
  for (unsigned i = 0; i < 4; ++i) {
    std::uint64_t entry = machine.entry(machine.root(cpu.space) + 8 * i);
    if (entry == cpu.pdpte[i]) continue;
    for (unsigned p = 0; p < cpu.stale.size(); ++p)
      if (machine.layout().pages[p] >> 30 == i) mark(machine, cpu, cpu.space, p);
    cpu.pdpte[i] = entry;
  }
}

}  // namespace lodge::paging
