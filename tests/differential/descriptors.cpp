// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/descriptors.h"

#include <asm/ldt.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace lodge::differential {

namespace {

struct Segment16 {
  std::uint32_t base, limit;
  bool isCode;
};

/// By their place in the LDT: the slots, the data, the patch area.
std::vector<Segment16> layout() {
  std::vector<Segment16> segments;
  for (unsigned slot = 0; slot < kBatch; ++slot)
    segments.push_back({static_cast<std::uint32_t>(kCode32Base + slot * kSlotBytes), kCode16Limit, true});
  segments.push_back({static_cast<std::uint32_t>(kDataAlias), kData16Limit, false});
  segments.push_back({static_cast<std::uint32_t>(kPatchAlias), static_cast<std::uint32_t>(kPatchBytes - 1), true});
  return segments;
}

}  // namespace

std::array<std::uint64_t, kGdtEntries> visibleGdt() {
  std::array<std::uint64_t, kGdtEntries> gdt{};
  for (unsigned n = 1; n < kGdtEntries; ++n) {
    std::uint32_t selector = n << 3 | 3, rights = 0, limit = 0;
    bool visible = false;
    asm("lar %3, %0\n\tsetz %2\n\tlsl %3, %1" : "+r"(rights), "+r"(limit), "=&q"(visible) : "r"(selector) : "cc");
    if (!visible) continue;
    constexpr std::uint32_t kGranular = 1u << 23;
    if ((rights & kGranular) != 0) limit >>= 12;
    gdt[n] = std::uint64_t{rights & 0x00f0'ff00} << 32 | std::uint64_t{limit & 0xf0000} << 32 | (limit & 0xffff);
  }
  return gdt;
}

std::vector<std::uint64_t> segments16() {
  std::vector<std::uint64_t> table;
  for (const Segment16& s : layout()) {
    constexpr std::uint64_t kCode = 0xfb, kData = 0xf3;  // DPL 3, accessed; readable or writable
    table.push_back((s.limit & 0xffff) | std::uint64_t{s.base & 0xff'ffff} << 16 | (s.isCode ? kCode : kData) << 40 |
                    std::uint64_t{s.limit & 0xf0000} << 32 | std::uint64_t{s.base & 0xff00'0000} << 32);
  }
  return table;
}

bool installSegments16() {
  unsigned entry = 0;
  for (const Segment16& s : layout()) {
    user_desc segment{};
    segment.entry_number = entry++;
    segment.base_addr = s.base;
    segment.limit = s.limit;
    segment.contents = s.isCode ? 2 : 0;
    constexpr int kWrite = 0x11;
    if (::syscall(SYS_modify_ldt, kWrite, &segment, sizeof segment) != 0) return false;
  }
  return true;
}

}  // namespace lodge::differential
