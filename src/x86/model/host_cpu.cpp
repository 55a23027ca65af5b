// SPDX-License-Identifier: Apache-2.0
#include "x86/model/host_cpu.h"

#include <cpuid.h>
#include <time.h>

#include <algorithm>
#include <cstring>

namespace lodge::x86 {

namespace {

std::int64_t monotonic() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

/// TSC and clock read together: the try with the shortest clock call counts.
void sample(std::uint64_t& tsc, std::int64_t& nanoseconds) {
  std::uint64_t best = ~std::uint64_t{0};
  for (int i = 0; i < 8; ++i) {
    std::uint64_t before = hostTsc();
    std::int64_t now = monotonic();
    std::uint64_t after = hostTsc();
    if (after - before < best) {
      best = after - before;
      tsc = before + (after - before) / 2;
      nanoseconds = now;
    }
  }
}

std::uint64_t measure() {
  std::uint64_t tsc0 = 0, tsc1 = 0;
  std::int64_t ns0 = 0, ns1 = 0;
  sample(tsc0, ns0);
  do {
    sample(tsc1, ns1);
  } while (ns1 - ns0 < 2'000'000);
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(tsc1 - tsc0) * 1'000'000'000 /
                                    static_cast<std::uint64_t>(ns1 - ns0));
}

}  // namespace

std::uint64_t hostTsc() {
  return __builtin_ia32_rdtsc();
}

CpuidResult hostCpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  CpuidResult r{};
  std::uint32_t highest =
      (leaf & 0xc000'0000) == 0x4000'0000 ? 0x4000'00ff : __get_cpuid_max(leaf & 0x8000'0000, nullptr);
  if (leaf <= highest) __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

CpuVendor hostVendor() {
  char name[12];
  CpuidResult r = hostCpuid(0, 0);
  std::memcpy(name, &r.ebx, 4);
  std::memcpy(name + 4, &r.edx, 4);
  std::memcpy(name + 8, &r.ecx, 4);
  bool amd = std::memcmp(name, "AuthenticAMD", 12) == 0 || std::memcmp(name, "HygonGenuine", 12) == 0;
  return amd ? CpuVendor::amd : CpuVendor::intel;
}

std::uint64_t hostTscHz() {
  CpuidResult crystal = hostCpuid(0x15, 0);
  if (crystal.eax != 0 && crystal.ebx != 0 && crystal.ecx != 0) {
    return std::uint64_t{crystal.ecx} * crystal.ebx / crystal.eax;
  }
  bool hypervisor = (hostCpuid(1, 0).ecx >> 31) != 0;
  if (hypervisor && hostCpuid(0x4000'0000, 0).eax >= 0x4000'0010) {
    if (std::uint32_t kilohertz = hostCpuid(0x4000'0010, 0).eax; kilohertz != 0) return std::uint64_t{kilohertz} * 1000;
  }
  return measure();
}

}  // namespace lodge::x86
