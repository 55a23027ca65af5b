// SPDX-License-Identifier: Apache-2.0
// KVM's paravirtual interface (Linux Documentation/virt/kvm/x86/msr.rst, cpuid.rst, hypercalls.rst;
// Documentation/virt/kvm/ x86/timekeeping.rst): clock, wall clock, EOI, steal
// time, hypercalls.
//
// The clock is a function of the guest's TSC alone: 0 ns where the TSC would be 0 had the guest never written it. So
// all CPUs publish the same line, and whoever moves CpuState::tscOffset of all CPUs (a pause) moves the clock with it.
#include "x86/paravirt.h"

#include "x86/cpu_model.h"
#include "x86/mmio.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/physical_memory.h"
#include "x86/system.h"

namespace lodge::x86 {

bool readRam(Cpu& cpu, std::uint64_t gpa, void* to, unsigned size) {
  std::uint64_t first = cpu.memory->offsetOf(Gpa{gpa}), last = cpu.memory->offsetOf(Gpa{gpa + size - 1});
  if (first == GuestMemory::kNoOffset || last - first != size - 1) return false;
  copyBytes(static_cast<std::byte*>(to), cpu.memory->cpuRw() + first, size);
  return true;
}

bool writeRam(Cpu& cpu, std::uint64_t gpa, const void* from, unsigned size) {
  std::uint64_t first = cpu.memory->writableOffsetOf(Gpa{gpa});
  std::uint64_t last = cpu.memory->writableOffsetOf(Gpa{gpa + size - 1});
  if (first == GuestMemory::kNoOffset || last - first != size - 1) return false;
  // May lie in two pages; the device view is writable in both cases.
  std::byte* to = cpu.memory->deviceView() + first;
  copyBytes(to, static_cast<const std::byte*>(from), size);
  wroteTo(cpu, to, 1);
  wroteTo(cpu, to + size - 1, 1);
  return true;
}

namespace {

enum : std::uint32_t {
  kWallClockOld = 0x11,
  kSystemTimeOld = 0x12,
  kWallClock = 0x4b56'4d00,
  kSystemTime = 0x4b56'4d01,
  kStealTime = 0x4b56'4d03,
  kPvEoi = 0x4b56'4d04,
  kPollControl = 0x4b56'4d05,
};
constexpr std::uint64_t kEnabled = 1;
constexpr std::uint8_t kTscStable = 1;

struct ClockPage {
  std::uint32_t version, padding;
  std::uint64_t tscTimestamp, systemTime;
  std::uint32_t multiplier;
  std::int8_t shift;
  std::uint8_t flags, padding2[2];
};
static_assert(sizeof(ClockPage) == 32);

struct WallClockPage {
  std::uint32_t version, seconds, nanoseconds;
};

void fence() {
  asm volatile("" ::: "memory");
}

}  // namespace

ClockScale clockScale(std::uint64_t tscHz) {
  ClockScale scale{0, 0};
  std::uint64_t second = 1'000'000'000, ticks = tscHz == 0 ? second : tscHz;
  // The multiplier is ns per tick as a 0.32 fraction in [1/2, 1).
  while (ticks > second * 2 || ticks >> 32 != 0) {
    ticks >>= 1;
    --scale.shift;
  }
  while (ticks <= second) {
    ticks <<= 1;
    ++scale.shift;
  }
  scale.multiplier = static_cast<std::uint32_t>((second << 32) / ticks);
  return scale;
}

std::uint64_t scaleTicks(const ClockScale& scale, std::uint64_t ticks) {
  ticks = scale.shift < 0 ? ticks >> -scale.shift : ticks << scale.shift;
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(ticks) * scale.multiplier) >> 32);
}

void publishParavirtClock(Cpu& cpu) {
  CpuState& state = cpu.state;
  if ((state.pvSystemTime & kEnabled) == 0) return;
  std::uint64_t gpa = state.pvSystemTime & ~kEnabled;
  ClockPage page{};
  if (!readRam(cpu, gpa, &page, sizeof page)) return;
  ClockScale scale = clockScale(cpu.model->tscHz);
  // Odd while the page is being changed.
  page.version = (page.version | 1) + 2;
  writeRam(cpu, gpa, &page.version, sizeof page.version);
  fence();
  page.padding = 0;
  page.tscTimestamp = state.tscAdjust;
  page.systemTime = 0;
  page.multiplier = scale.multiplier;
  page.shift = scale.shift;
  page.flags = kTscStable;
  page.padding2[0] = page.padding2[1] = 0;
  writeRam(cpu, gpa, &page, sizeof page);
  fence();
  ++page.version;
  writeRam(cpu, gpa, &page.version, sizeof page.version);
}

namespace {

void publishWallClock(Cpu& cpu, std::uint64_t gpa) {
  WallClockPage page{};
  if (!readRam(cpu, gpa, &page, sizeof page)) return;
  cpu.parkFpu();
  auto now = static_cast<std::uint64_t>(cpu.environment->wallClockBase() + cpu.environment->guestTime());
  std::uint64_t zero = now - scaleTicks(clockScale(cpu.model->tscHz), readTsc(cpu) - cpu.state.tscAdjust);
  page.version = (page.version | 1) + 2;
  writeRam(cpu, gpa, &page.version, sizeof page.version);
  fence();
  page.seconds = static_cast<std::uint32_t>(zero / 1'000'000'000);
  page.nanoseconds = static_cast<std::uint32_t>(zero % 1'000'000'000);
  writeRam(cpu, gpa, &page, sizeof page);
  fence();
  ++page.version;
  writeRam(cpu, gpa, &page.version, sizeof page.version);
}

}  // namespace

MsrResult readParavirtMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  switch (number) {
    case kWallClockOld:
    case kWallClock:
      value = cpu.state.pvWallClock;
      return MsrResult::done;
    case kSystemTimeOld:
    case kSystemTime:
      value = cpu.state.pvSystemTime;
      return MsrResult::done;
    case kStealTime:
      value = cpu.state.pvSteal;
      return MsrResult::done;
    case kPvEoi:
      value = cpu.state.pvEoi;
      return MsrResult::done;
    case kPollControl:
      value = cpu.state.pvPollControl;
      return MsrResult::done;
    default:
      return MsrResult::unknown;
  }
}

MsrResult writeParavirtMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  switch (number) {
    case kWallClockOld:
    case kWallClock:
      cpu.state.pvWallClock = value;
      publishWallClock(cpu, value);
      return MsrResult::done;
    case kSystemTimeOld:
    case kSystemTime:
      cpu.state.pvSystemTime = value;
      publishParavirtClock(cpu);
      return MsrResult::done;
    case kStealTime:
      // 64 bytes, aligned. What the host took from the guest the kvm engine alone tells; elsewhere it stays as it was.
      if ((value & kEnabled) != 0 && (value & 0x3e) != 0) return MsrResult::fault;
      cpu.state.pvSteal = value;
      return MsrResult::done;
    case kPvEoi:
      // Bit 1 is reserved, and the word is aligned.
      if ((value & kEnabled) != 0 && (value & 2) != 0) return MsrResult::fault;
      // Written in a handler, with the bit set: the guest will skip its EOI where the bit stays.
      syncParavirtEoi(cpu);
      cpu.state.pvEoi = value;
      return MsrResult::done;
    case kPollControl:
      if (value > 1) return MsrResult::fault;
      cpu.state.pvPollControl = value;
      return MsrResult::done;
    default:
      return MsrResult::unknown;
  }
}

bool paravirtEoiPending(Cpu& cpu) {
  if (!cpu.paravirtEoiArmed) return false;
  cpu.paravirtEoiArmed = false;
  std::uint64_t offset = cpu.memory->writableOffsetOf(Gpa{cpu.state.pvEoi & ~3ull});
  if ((cpu.state.pvEoi & kEnabled) == 0 || offset == GuestMemory::kNoOffset) return false;
  // The guest tests and clears the same byte with one instruction; what is taken back here it will do by the APIC's
  // register.
  auto* byte = reinterpret_cast<std::uint8_t*>(cpu.memory->deviceView() + offset);
  return (__atomic_fetch_and(byte, static_cast<std::uint8_t>(~1), __ATOMIC_SEQ_CST) & 1) == 0;
}

void syncParavirtEoi(Cpu& cpu) {
  if (!paravirtEoiPending(cpu)) return;
  cpu.parkFpu();
  cpu.environment->apic().endOfInterrupt();
}

void armParavirtEoi(Cpu& cpu) {
  if ((cpu.state.pvEoi & kEnabled) == 0) return;
  std::uint64_t offset = cpu.memory->writableOffsetOf(Gpa{cpu.state.pvEoi & ~3ull});
  if (offset == GuestMemory::kNoOffset) return;
  cpu.parkFpu();
  if (!cpu.environment->apic().eoiMayBeSkipped()) return;
  auto* byte = reinterpret_cast<std::uint8_t*>(cpu.memory->deviceView() + offset);
  __atomic_fetch_or(byte, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  wroteTo(cpu, reinterpret_cast<std::byte*>(byte), 1);
  cpu.paravirtEoiArmed = true;
}

namespace {

enum : std::uint64_t { kVapicPollIrq = 1, kKickCpu = 5, kClockPairing = 9, kSendIpi = 10, kSchedYield = 11 };
constexpr std::int64_t kNotPermitted = -1, kNoSuchCall = -1000;

std::int64_t dispatch(Cpu& cpu, std::uint64_t number, const std::uint64_t (&arguments)[4]) {
  if (cpu.state.cpl != 0) return kNotPermitted;
  switch (number) {
    case kVapicPollIrq:
    case kSchedYield:
      return 0;
    case kKickCpu:
    case kClockPairing:
    case kSendIpi:
      cpu.parkFpu();
      return cpu.environment->hypercall(number, arguments);
    default:
      return kNoSuchCall;
  }
}

}  // namespace

void hypercall(Cpu& cpu) {
  CpuState& state = cpu.state;
  std::uint64_t mask = cpu.mode64() ? ~0ull : 0xffff'ffff;
  const std::uint64_t arguments[4] = {state.gpr[rbx] & mask, state.gpr[rcx] & mask, state.gpr[rdx] & mask,
                                      state.gpr[rsi] & mask};
  auto result = static_cast<std::uint64_t>(dispatch(cpu, state.gpr[rax] & mask, arguments));
  state.gpr[rax] = result & mask;
}

}  // namespace lodge::x86
