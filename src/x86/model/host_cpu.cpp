// SPDX-License-Identifier: Apache-2.0
#include "x86/model/host_cpu.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

namespace lodge::x86 {

namespace {

// A TSC value and the time at which it was read.
struct Reading {
  std::uint64_t tsc;
  std::int64_t nanoseconds;
};

// As the host's oscillator goes, as KVM's own rate is: the other clock is slewed by NTP, hundreds of parts in a million
// where it is set.
std::int64_t monotonicNow() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

// The best of several tries: the one whose clock read took least.
Reading readBoth(const HostCpu& host) {
  Reading best{};
  std::uint64_t bestTicks = std::numeric_limits<std::uint64_t>::max();
  for (int i = 0; i < 32; ++i) {
    std::uint64_t before = host.tsc();
    std::int64_t now = monotonicNow();
    std::uint64_t ticks = host.tsc() - before;
    if (ticks < bestTicks) {
      bestTicks = ticks;
      best = {before + ticks / 2, now};
    }
  }
  return best;
}

/// From `start` on, for long enough.
std::uint64_t measuredTscHz(const HostCpu& host, const Reading& start) {
  constexpr std::int64_t kSpan = 1'800'000;
  while (monotonicNow() - start.nanoseconds < kSpan) {
  }
  Reading end = readBoth(host);
  auto hz = static_cast<unsigned __int128>(end.tsc - start.tsc) * 1'000'000'000u /
            static_cast<std::uint64_t>(end.nanoseconds - start.nanoseconds);
  return static_cast<std::uint64_t>(hz);
}

std::uint64_t tscHzSince(const HostCpu& host, const Reading& start) {
  // SDM vol. 2, CPUID leaf 15H: Hz = crystal * EBX / EAX, where the crystal's rate is told.
  CpuidResult crystal = host.cpuid(0x15, 0);
  std::uint64_t denominator = crystal[CpuidRegister::eax], numerator = crystal[CpuidRegister::ebx];
  std::uint64_t rate = crystal[CpuidRegister::ecx];
  if (denominator != 0 && numerator != 0 && rate != 0) return rate * numerator / denominator;
  CpuidResult hypervisor = host.cpuid(0x4000'0010, 0);
  if (hypervisor[CpuidRegister::eax] != 0) return std::uint64_t{hypervisor[CpuidRegister::eax]} * 1000;
  return std::max<std::uint64_t>(measuredTscHz(host, start), 1'000'000);
}

class RealHostCpu : public HostCpu {
 public:
  // Each leaf is read once: where this host is a virtual machine, CPUID takes microseconds, and a model is made of
  // hundreds of looks.
  CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf) const override {
    std::lock_guard lock(mutex_);
    CpuidResult r;
    std::uint32_t base = leaf & 0xc000'0000;
    if (leaf > known(base, 0)[CpuidRegister::eax]) return r;
    return known(leaf, subleaf);
  }
  std::uint64_t xcr0() const override {
    constexpr std::uint32_t kOsxsave = 1u << 27;
    if ((cpuid(1, 0)[CpuidRegister::ecx] & kOsxsave) == 0) return 0;
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
  }
  std::uint64_t tscHz() const override {
    static const std::uint64_t hz = tscHzSince(*this, start_);
    return hz;
  }
  std::uint64_t tsc() const override { return __rdtsc(); }

 private:
  const CpuidResult& known(std::uint32_t leaf, std::uint32_t subleaf) const {
    auto [at, fresh] = known_.try_emplace({leaf, subleaf});
    auto& r = at->second.reg;
    if (fresh) __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
    return at->second;
  }

  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::uint32_t, std::uint32_t>, CpuidResult> known_;
  Reading start_ = readBoth(*this);  ///< when the program began
};
const RealHostCpu realHostCpu;

}  // namespace

std::uint64_t hostTscHz(const HostCpu& host) {
  return tscHzSince(host, readBoth(host));
}

const HostCpu& hostCpu() {
  return realHostCpu;
}

}  // namespace lodge::x86
