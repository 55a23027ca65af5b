// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/model.h"

#include <algorithm>

namespace lodge::paging {

namespace {
using namespace x86;
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kLarge = 0x80, kGlobal = 0x100, kNoExecute = 1ull << 63;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000, kLargeReserved = 0x1fe000;
}  // namespace

const std::vector<std::uint64_t>& pages() {
  static const std::vector<std::uint64_t> all = [] {
    std::vector<std::uint64_t> list;
    for (std::uint64_t region : kRegions)
      for (std::uint64_t slot : {region, region + 2_MiB})
        for (unsigned page : kPages) list.push_back(slot + page * kPageSize);
    return list;
  }();
  return all;
}

int pageAt(std::uint64_t linear) {
  auto at = std::find(pages().begin(), pages().end(), linear & ~kPageMask);
  return at == pages().end() ? -1 : static_cast<int>(at - pages().begin());
}

CpuModel::CpuModel(bool withPcids) : pcide(withPcids), stale(pages().size()) {}

std::uint64_t CpuModel::cr0() const {
  return cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::pg | (wp ? cr0::wp : 0);
}

std::uint64_t CpuModel::cr4() const {
  return cr4::pae | cr4::osfxsr | cr4::fsgsbase | (pcide ? cr4::pcide : 0) | (pge ? cr4::pge : 0) |
         (smep ? cr4::smep : 0) | (smap ? cr4::smap : 0);
}

void CpuModel::flushed(unsigned page, bool globalToo, unsigned ofPcid) {
  for (unsigned p = 0; p < stale.size(); ++p) {
    bool same = p == page || (stale[p].large && (pages()[p] ^ pages()[page]) < 2_MiB);
    if (!same) continue;
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
  constexpr std::uint64_t kErrorPresent = 1, kErrorReserved = 8;
  Walk w;
  w.errorCode = (kind == Kind::write ? 2 : 0) | (user ? 4 : 0) | (kind == Kind::execute ? 16 : 0);  // NXE is set
  bool userPage = true, writable = true, noExecute = false;
  std::uint64_t table = machine.root(cpu.space);
  for (int level = 3;; --level) {
    std::uint64_t slot = table + ((linear >> (12 + 9 * level)) & 511) * 8;
    std::uint64_t entry = machine.read(slot);
    w.slots[w.levels++] = slot;
    if ((entry & kPresent) == 0) return w;
    w.large = level == 1 && (entry & kLarge) != 0;
    if (w.large && (entry & kLargeReserved) != 0) {
      w.errorCode |= kErrorPresent | kErrorReserved;
      return w;
    }
    userPage = userPage && (entry & kUserBit) != 0;
    writable = writable && (entry & kWrite) != 0;
    noExecute = noExecute || (entry & kNoExecute) != 0;
    table = entry & kAddress;
    if (level != 0 && !w.large) continue;
    w.global = (entry & kGlobal) != 0;
    w.gpa = w.large ? (table & ~(2_MiB - 1)) + (linear & (2_MiB - 1)) : table + (linear & kPageMask);
    break;
  }
  bool refused = user ? !userPage : userPage && (kind == Kind::execute ? cpu.smep : cpu.smap && !accessCheckOff);
  refused = refused || (kind == Kind::write && !writable && (user || cpu.wp)) || (kind == Kind::execute && noExecute);
  if (refused) {
    w.errorCode |= kErrorPresent;
  } else {
    w.ok = true;
  }
  return w;
}

void markStale(const Machine& machine, CpuModel& cpu, std::uint64_t slot, int level, std::uint64_t before) {
  if ((before & kPresent) == 0) return;  // what is not present is not cached
  for (unsigned space = 0; space < kSpaces; ++space) {
    for (unsigned p = 0; p < pages().size(); ++p) {
      if (machine.slotOf(space, pages()[p], level) != slot) continue;
      std::uint64_t pde = machine.read(machine.slotOf(space, pages()[p], 1));
      bool large = (pde & kLarge) != 0 && (pde & kPresent) != 0;
      std::uint64_t leaf = large ? pde : machine.read(machine.slotOf(space, pages()[p], 0));
      CpuModel::Stale& s = cpu.stale[p];
      bool already = s.global || s.local != decltype(s.local){};
      s.large = large && (!already || s.large);
      s.local[cpu.pcid(space)] = true;
      if ((leaf & kGlobal) != 0) s.global = true;
    }
  }
}

}  // namespace lodge::paging
