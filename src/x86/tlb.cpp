// SPDX-License-Identifier: Apache-2.0
#include "x86/tlb.h"

#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

void clearEntry(Cpu& cpu, unsigned index) {
  TlbEntry& entry = cpu.tlb[index];
  entry.readTag = entry.writeTag = entry.fetchTag = kEmptyTag;
}

// Clears the entries whose bits are set in used & ~keep.
void clearEntries(Cpu& cpu, const std::uint64_t* keep) {
  for (unsigned word = 0; word < Cpu::kTlbEntries / 64; ++word) {
    std::uint64_t bits = cpu.tlbUsed[word] & ~(keep ? keep[word] : 0);
    cpu.tlbUsed[word] &= ~bits;
    cpu.tlbGlobal[word] &= ~bits;
    cpu.tlbLarge[word] &= ~bits;
    for (; bits != 0; bits &= bits - 1) clearEntry(cpu, word * 64 + static_cast<unsigned>(__builtin_ctzll(bits)));
  }
}

std::uint64_t pageOf(const TlbEntry& entry) {
  std::uint64_t tag = entry.readTag != kEmptyTag ? entry.readTag : entry.writeTag;
  return (tag != kEmptyTag ? tag : entry.fetchTag) & ~kPageMask;
}

// Entries cut out of large pages: INVLPG of any address in the large page concerns them all. Its size is not kept: the
// surrounding GiB, the largest there is, goes.
void clearLargeAround(Cpu& cpu, std::uint64_t linear) {
  for (unsigned word = 0; word < Cpu::kTlbEntries / 64; ++word) {
    for (std::uint64_t bits = cpu.tlbLarge[word]; bits != 0; bits &= bits - 1) {
      unsigned index = word * 64 + static_cast<unsigned>(__builtin_ctzll(bits));
      if (((pageOf(cpu.tlb[index]) ^ linear) >> 30) == 0) clearEntry(cpu, index);
    }
  }
}

}  // namespace

void clearTlb(Cpu& cpu) {
  clearEntries(cpu, nullptr);
}
void clearTlbButGlobal(Cpu& cpu) {
  clearEntries(cpu, cpu.tlbGlobal);
}

void clearTlbPage(Cpu& cpu, std::uint64_t linear) {
  for (Rights rights : {Rights::supervisor, Rights::supervisorOverrideAc, Rights::user}) {
    unsigned index = tlbIndex(linear, rights);
    TlbEntry& entry = cpu.tlb[index];
    std::uint64_t tag = tlbTag(linear, rights);
    if (entry.readTag == tag || entry.writeTag == tag || entry.fetchTag == tag) clearEntry(cpu, index);
  }
  clearLargeAround(cpu, linear);
}

void fillTlb(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, const PageTranslation& page,
             std::byte* hostPage, bool writable) {
  unsigned index = tlbIndex(linear, rights);
  TlbEntry& entry = cpu.tlb[index];
  std::uint64_t tag = tlbTag(linear, rights);
  // Permissions may have been reduced since the other tags were filled only with a flush in between, but they may be
  // another page's.
  if (entry.readTag != tag) entry.readTag = kEmptyTag;
  if (entry.writeTag != tag) entry.writeTag = kEmptyTag;
  if (entry.fetchTag != tag) entry.fetchTag = kEmptyTag;
  if (entry.host != hostPage) entry.readTag = entry.writeTag = entry.fetchTag = kEmptyTag;
  entry.host = hostPage;
  if (access == Access::execute) {
    entry.fetchTag = tag;
  } else {
    entry.readTag = tag;
    if (writable) entry.writeTag = tag;
  }
  std::uint64_t bit = 1ull << (index % 64);
  cpu.tlbUsed[index / 64] |= bit;
  cpu.tlbGlobal[index / 64] = page.global ? cpu.tlbGlobal[index / 64] | bit : cpu.tlbGlobal[index / 64] & ~bit;
  cpu.tlbLarge[index / 64] =
      page.pageSize > kPageSize ? cpu.tlbLarge[index / 64] | bit : cpu.tlbLarge[index / 64] & ~bit;
}

void flushTlbPage(Cpu& cpu, std::uint64_t linear) {
  clearTlbPage(cpu, linear);
  if (cpu.listener) cpu.listener->flushPage(linear);
}

void flushTlb(Cpu& cpu, bool globalToo) {
  if (globalToo) {
    clearTlb(cpu);
  } else {
    clearTlbButGlobal(cpu);
  }
  if (cpu.listener) cpu.listener->flushAll(globalToo);
}

void flushTlbEverything(Cpu& cpu) {
  clearTlb(cpu);
  if (cpu.listener) cpu.listener->flushEverything();
}

}  // namespace lodge::x86
