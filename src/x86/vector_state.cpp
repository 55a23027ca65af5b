// SPDX-License-Identifier: Apache-2.0
#include "x86/vector_state.h"

#include "base/bytes.h"
#include "x86/cpu.h"

namespace lodge::x86 {

namespace {

struct HostState {
  bool xsave;
  bool avx;
  std::uint64_t components;
  std::uint32_t mxcsrMask;
};

constexpr std::uint32_t kDefaultMxcsr = 0x1f80;
constexpr unsigned kMxcsr = 24, kHeader = 512;

HostState readHost() {
  HostState host{false, false, 3, 0xffbf};
  std::uint32_t eax = 1, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  host.xsave = (ecx >> 27) & 1;  // OSXSAVE
  if (host.xsave) {
    std::uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    host.components = low & 0xe7;
    host.avx = (host.components & 4) != 0;
  }
  alignas(16) std::uint32_t area[128] = {};
  asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
  if (area[7] != 0) host.mxcsrMask = area[7];
  return host;
}

const HostState kHost = readHost();

}  // namespace

std::uint64_t vectorComponents() {
  return kHost.components;
}

void saveVectorState(std::byte* area) {
  for (unsigned i = 0; i < 64; i += 8) storeLe(area + kHeader + i, std::uint64_t{0});
  if (!kHost.xsave) {
    asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
    storeLe(area + kHeader, kHost.components);
    return;
  }
  asm volatile("xsave64 (%0)" : : "r"(area), "a"(kHost.components), "d"(0) : "memory");
}

void sanitizeVectorState(std::byte* area) {
  storeLe(area + kMxcsr, loadLe<std::uint32_t>(area + kMxcsr) & kHost.mxcsrMask);
  storeLe(area + kHeader, loadLe<std::uint64_t>(area + kHeader) & kHost.components);
  for (unsigned i = 8; i < 64; i += 8) storeLe(area + kHeader + i, std::uint64_t{0});
}

void loadVectorState(std::byte* area) {
  sanitizeVectorState(area);
  if (!kHost.xsave) {
    asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
    return;
  }
  asm volatile("xrstor64 (%0)" : : "r"(area), "a"(kHost.components), "d"(0) : "memory");
}

void cleanVectorState() {
  std::uint32_t mxcsr = kDefaultMxcsr;
  asm volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
  if (kHost.avx) asm volatile("vzeroupper");
}

void Cpu::parkFpu() {
  if (!fpuLive) return;
  saveVectorState(state.xsave);
  storeLe(state.xsave + 6, x87.opcode);
  storeLe(state.xsave + 8, x87.ip);
  storeLe(state.xsave + 16, x87.dp);
  cleanVectorState();
  fpuLive = false;
}

void Cpu::unparkFpu() {
  if (fpuLive) return;
  x87 = {loadLe<std::uint64_t>(state.xsave + 8), loadLe<std::uint64_t>(state.xsave + 16), 0, 0,
         loadLe<std::uint16_t>(state.xsave + 6)};
  loadVectorState(state.xsave);
  fpuLive = true;
}

}  // namespace lodge::x86
