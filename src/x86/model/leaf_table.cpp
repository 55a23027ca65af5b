// SPDX-License-Identifier: Apache-2.0
#include "x86/model/leaf_table.h"

#include <algorithm>
#include <bit>

namespace lodge::x86 {

CpuidEntry& LeafTable::entry(std::uint32_t leaf, std::uint32_t subleaf, bool perSubleaf) {
  auto at = std::find_if(entries_.begin(), entries_.end(), [&](const CpuidEntry& e) {
    return e.leaf > leaf || (e.leaf == leaf && e.subleaf >= subleaf);
  });
  if (at != entries_.end() && at->leaf == leaf && at->subleaf == subleaf) return *at;
  return *entries_.insert(at, CpuidEntry{leaf, subleaf, 0, 0, 0, 0, perSubleaf});
}

bool LeafTable::has(std::uint32_t leaf, std::uint32_t subleaf) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const CpuidEntry& e) { return e.leaf == leaf && e.subleaf == subleaf; });
}

void LeafTable::setBit(std::uint32_t leaf, std::uint32_t subleaf, bool perSubleaf, CpuidRegister reg, unsigned bit) {
  CpuidEntry& e = entry(leaf, subleaf, perSubleaf);
  std::uint32_t* regs[] = {&e.eax, &e.ebx, &e.ecx, &e.edx};
  *regs[static_cast<unsigned>(reg)] |= 1u << bit;
}

void LeafTable::setLimits() {
  for (std::uint32_t base : {0u, 0x4000'0000u, 0x8000'0000u}) {
    std::uint32_t last = base;
    for (const CpuidEntry& e : entries_) {
      if ((e.leaf & 0xc000'0000) == base) last = e.leaf;
    }
    leaf(base).eax = last;
  }
}

namespace {

// Bits of the APIC id that tell cores apart.
unsigned coreBits(unsigned cpus) {
  return static_cast<unsigned>(std::bit_width(cpus - 1));
}

// SDM vol. 2, leaves 0BH and 1FH: level type 1 is a hyper-thread, 2 a core.
void addExtendedTopology(LeafTable& table, std::uint32_t leaf, unsigned cpus) {
  table.subleaf(leaf, 0) = {leaf, 0, 0, 1, 1 << 8 | 0, 0, true};
  table.subleaf(leaf, 1) = {leaf, 1, coreBits(cpus), cpus, 2 << 8 | 1, 0, true};
}

}  // namespace

void addTopology(LeafTable& table, CpuVendor vendor, unsigned cpus) {
  constexpr std::uint32_t kHtt = 1 << 28, kCmpLegacy = 1 << 1;
  if (cpus > 1) {
    CpuidEntry& one = table.leaf(1);
    one.edx |= kHtt;
    one.ebx |= (1u << coreBits(cpus)) << 16;
  }
  addExtendedTopology(table, 0xb, cpus);
  if (vendor == CpuVendor::intel) {
    addExtendedTopology(table, 0x1f, cpus);
    return;
  }
  if (cpus > 1) table.leaf(0x8000'0001).ecx |= kCmpLegacy;
  table.leaf(0x8000'0008).ecx = coreBits(cpus) << 12 | (cpus - 1);
  table.leaf(0x8000'001e);  // one thread a core, one node; ids are filled in
}

namespace {

struct Cache {
  unsigned type;  // 1 data, 2 instructions, 3 both
  unsigned level, kib, ways;
  bool shared;
};
constexpr unsigned kLine = 64;
// A middling server core's.
constexpr Cache kCaches[] = {
    {1, 1, 32, 8, false}, {2, 1, 32, 8, false}, {3, 2, 1024, 8, false}, {3, 3, 32768, 16, true}};

// The layout of Intel's leaf 4 and AMD's 0x8000001d is the same but for the cores a package in EAX's upper bits.
CpuidEntry cacheEntry(std::uint32_t leaf, std::uint32_t subleaf, const Cache& cache, unsigned cpus, bool intel) {
  constexpr std::uint32_t kSelfInitializing = 1 << 8;
  std::uint32_t sets = cache.kib * 1024 / kLine / cache.ways;
  unsigned sharing = cache.shared ? (1u << coreBits(cpus)) - 1 : 0;
  std::uint32_t eax = cache.type | cache.level << 5 | kSelfInitializing | sharing << 14;
  if (intel) eax |= ((1u << coreBits(cpus)) - 1) << 26;
  return {leaf, subleaf, eax, (kLine - 1) | (cache.ways - 1) << 22, sets - 1, 0, true};
}

}  // namespace

void addCaches(LeafTable& table, CpuVendor vendor, unsigned cpus) {
  bool intel = vendor == CpuVendor::intel;
  std::uint32_t leaf = intel ? 4 : 0x8000'001d;
  unsigned index = 0;
  for (const Cache& cache : kCaches) {
    table.subleaf(leaf, index) = cacheEntry(leaf, index, cache, cpus, intel);
    ++index;
  }
  table.subleaf(leaf, index);
  if (intel) {
    table.leaf(2).eax = 0x00fe'ff01;  // "ask leaf 4"
  } else {
    // AMD APM vol. 3, E.4.3: TLBs of 64 and 512 entries (associativity 0xff: full, 4: 4 ways); caches by size in KiB,
    // ways, lines a tag and line size; L2 ways code 6 is 8; L3 in 512 KiB units, ways code 8 is 16.
    constexpr std::uint32_t kL1Tlb = 0xff40'ff40, kL2Tlb = 0x4200'4200, kL1 = 32 << 24 | 8 << 16 | 1 << 8 | kLine;
    table.leaf(0x8000'0005) = {0x8000'0005, 0, kL1Tlb, kL1Tlb, kL1, kL1, false};
    table.leaf(0x8000'0006) = {
        0x8000'0006, 0, kL2Tlb, kL2Tlb, 1024 << 16 | 6 << 12 | 1 << 8 | kLine, 64 << 18 | 8 << 12 | 1 << 8 | kLine,
        false};
  }
}

void addHypervisor(LeafTable& table, std::uint64_t tscHz) {
  // Linux Documentation/virt/kvm/x86/cpuid.rst.
  constexpr std::uint32_t kClockSource = 1 << 0, kNopIoDelay = 1 << 1, kClockSource2 = 1 << 3, kStealTime = 1 << 5,
                          kPvEoi = 1 << 6, kPvUnhalt = 1 << 7, kPvSendIpi = 1 << 11, kPollControl = 1 << 12,
                          kClockStable = 1 << 24;
  table.leaf(0x4000'0000) = {0x4000'0000, 0, 0, 0x4b4d'564b, 0x564b'4d56, 0x4d, false};  // "KVMKVMKVM\0\0\0"
  table.leaf(0x4000'0001).eax = kClockSource | kNopIoDelay | kClockSource2 | kStealTime | kPvEoi | kPvUnhalt |
                                kPvSendIpi | kPollControl | kClockStable;
  // TSC and APIC bus in kHz.
  table.leaf(0x4000'0010) = {0x4000'0010, 0, static_cast<std::uint32_t>(tscHz / 1000), kApicBusHz / 1000, 0, 0, false};
}

}  // namespace lodge::x86
