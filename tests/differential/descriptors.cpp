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

namespace {

std::array<std::uint64_t, kGdtEntries> askForGdt() {
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

}  // namespace

const std::array<std::uint64_t, kGdtEntries>& visibleGdt() {
  static const std::array<std::uint64_t, kGdtEntries> gdt = askForGdt();
  return gdt;
}

bool hostKeepsNullBases() {
  // GS is nobody's here.
  static const bool keeps = hostHasFsgsbase() && [] {
    std::uint64_t before = 0, after = 0, one = 1;
    asm volatile("rdgsbase %0\n\twrgsbase %2\n\tmov %3, %%gs\n\trdgsbase %1\n\twrgsbase %0"
                 : "=&r"(before), "=&r"(after)
                 : "r"(one), "r"(0));
    return after != 0;
  }();
  return keeps;
}

bool hostLarShowsLimit() {
  static const bool shows = [] {
    // One with a limit of 4 GiB, and one that ends below 1 MiB: the number of a CPU is small.
    auto limitBits = [](std::uint32_t selector) {
      std::uint32_t rights = 0;
      asm("lar %1, %0" : "+r"(rights) : "r"(selector) : "cc");
      return rights >> 16 & 15;
    };
    return limitBits(kUserSs) == 15 && limitBits(kCpuNumber) == 0;
  }();
  return shows;
}

StayOnCpu::StayOnCpu() : before_(1024) {
  // By hand: glibc's cpu_set_t ends at 1024 CPUs.
  std::size_t bytes = before_.size() * sizeof before_[0];
  unsigned cpu = 0;
  if (::syscall(SYS_getcpu, &cpu, nullptr, nullptr) != 0 || cpu >= 8 * bytes) return;
  if (::syscall(SYS_sched_getaffinity, 0, bytes, before_.data()) <= 0) return;
  std::vector<unsigned long> one(before_.size());
  one[cpu / 64] = 1ul << (cpu % 64);
  stays_ = ::syscall(SYS_sched_setaffinity, 0, bytes, one.data()) == 0;
}

StayOnCpu::~StayOnCpu() {
  if (stays_) (void)::syscall(SYS_sched_setaffinity, 0, before_.size() * sizeof before_[0], before_.data());
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
