// SPDX-License-Identifier: Apache-2.0
#include "machine/guest_clock.h"

#include <limits>

namespace lodge {

namespace {

// pvclock_vcpu_time_info.
constexpr std::uint64_t kClockFlags = 29, kEnabled = 1;
constexpr std::uint8_t kStoodStill = 2;  // PVCLOCK_GUEST_STOPPED, which the guest takes back

struct Pairing {
  std::int64_t seconds, nanoseconds;
  std::uint64_t tsc;
  std::uint32_t flags, padding[9];
};
static_assert(sizeof(Pairing) == 64);

}  // namespace

Nanoseconds timeOfTsc(std::uint64_t tsc, std::uint64_t current, std::uint64_t hz, Nanoseconds now) {
  constexpr Nanoseconds kFar = std::numeric_limits<Nanoseconds>::max() / 2;
  if (tsc <= current) return now;
  unsigned __int128 span = static_cast<unsigned __int128>(tsc - current) * kNanosecondsPerSecond / hz;
  return span >= static_cast<unsigned __int128>(kFar - now) ? kFar : now + static_cast<Nanoseconds>(span) + 1;
}

void noteStandstill(x86::Cpu& cpu) {
  if ((cpu.state.pvSystemTime & kEnabled) == 0) return;
  Gpa at{(cpu.state.pvSystemTime & ~kEnabled) + kClockFlags};
  std::uint8_t flags = 0;
  if (!cpu.memory->readObject(at, flags)) return;
  flags |= kStoodStill;
  static_cast<void>(cpu.memory->writeObject(at, flags));  // where it could be read there is memory
}

std::int64_t pairClocks(x86::Cpu& cpu, std::uint64_t gpa, std::uint64_t kind) {
  constexpr std::uint64_t kWallClock = 0;
  constexpr std::int64_t kNoMemory = -14, kNotSupported = -95;
  if (kind != kWallClock) return kNotSupported;
  std::uint64_t before = __builtin_ia32_rdtsc();
  Nanoseconds now = hostUtc();
  std::uint64_t after = __builtin_ia32_rdtsc();
  Pairing pairing{};
  pairing.seconds = now / kNanosecondsPerSecond;
  pairing.nanoseconds = now % kNanosecondsPerSecond;
  pairing.tsc = cpu.tscAt(before + (after - before) / 2);
  return cpu.memory->writeObject(Gpa{gpa}, pairing) ? 0 : kNoMemory;
}

}  // namespace lodge
