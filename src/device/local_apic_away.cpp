// SPDX-License-Identifier: Apache-2.0
// The local APIC's state on its way to an engine that keeps it, and back.
#include "device/local_apic.h"
#include "device/local_apic_index.h"

namespace lodge {

namespace {
using namespace local_apic;
constexpr std::uint64_t kBaseX2Apic = 1 << 10;

using Mode = LocalApicTimer::Mode;

Mode modeOf(std::uint32_t timerEntry) {
  std::uint32_t mode = (timerEntry >> 17) & 3;
  return mode == 3 ? Mode::oneShot : static_cast<Mode>(mode);
}

/// When a count has run out, an engine cannot say whether its interrupt is in IRR: a one-shot timer gives it (again),
/// which guests can bear better than none.
Nanoseconds remainingOf(const LocalApicTimer::State& timer, std::uint32_t currentCount) {
  if (timer.mode == Mode::tscDeadline || timer.initialCount == 0) return LocalApicTimer::kNever;
  Nanoseconds tick = LocalApicTimer::tickLength(timer.divide);
  if (currentCount != 0) return tick * static_cast<Nanoseconds>(currentCount);
  return timer.mode == Mode::periodic ? tick * static_cast<Nanoseconds>(timer.initialCount) : 0;
}
}  // namespace

x86::LocalApicRegisters LocalApic::surrender() {
  State state = save();
  x86::LocalApicRegisters out;
  out.base = state.base;
  out.words[kId] = (state.base & kBaseX2Apic) != 0 ? state.id : state.id << 24;
  bool exists = true;
  out.words[kVersion] = readRegister(kVersion, exists);
  out.words[kTaskPriority] = state.taskPriority;
  out.words[kProcessorPriority] = processorPriority();
  out.words[kLogicalDestination] = state.logicalDestination;
  out.words[kDestinationFormat] = state.destinationFormat;
  out.words[kSpurious] = state.spurious;
  for (unsigned n = 0; n < 8; ++n) {
    out.words[kIsr + n] = state.isr[n];
    out.words[kTmr + n] = state.tmr[n];
    out.words[kIrr + n] = state.irr[n];
  }
  out.words[kErrorStatus] = state.errorStatus;
  out.words[kCommand] = static_cast<std::uint32_t>(state.icr);
  out.words[kCommandHigh] = static_cast<std::uint32_t>(state.icr >> 32);
  for (unsigned n = 0; n < kLvtCount; ++n) out.words[kLvtFirst + n] = state.lvt[n];
  const auto& timer = state.timer;
  out.words[kDivide] = timer.divide;
  if (timer.mode == Mode::tscDeadline) {
    out.tscDeadline = timer.tscDeadline;
  } else if (timer.remaining != LocalApicTimer::kNever) {
    // A count that has run out stays out: engines would let it run again.
    Nanoseconds tick = LocalApicTimer::tickLength(timer.divide);
    out.words[kInitialCount] = timer.initialCount;
    out.words[kCurrentCount] = static_cast<std::uint32_t>((timer.remaining + tick - 1) / tick);
    if (out.words[kCurrentCount] == 0) out.words[kCurrentCount] = 1;
  }
  timer_.reset();
  irr_.clearAll();
  isr_.clearAll();
  tmr_.clearAll();
  extIntMessage_ = false;
  lastAcknowledged_ = -1;
  updatePriority();
  away_ = true;
  lintConfigured();
  return out;
}

void LocalApic::adopt(const x86::LocalApicRegisters& in) {
  State state{};
  state.base = in.base;
  state.id = (in.base & kBaseX2Apic) != 0 ? in.words[kId] : in.words[kId] >> 24;
  state.icr = std::uint64_t{in.words[kCommandHigh]} << 32 | in.words[kCommand];
  state.logicalDestination = in.words[kLogicalDestination];
  state.destinationFormat = in.words[kDestinationFormat];
  state.spurious = in.words[kSpurious];
  state.errorStatus = in.words[kErrorStatus];
  state.taskPriority = static_cast<std::uint8_t>(in.words[kTaskPriority]);
  for (unsigned n = 0; n < 8; ++n) {
    state.isr[n] = in.words[kIsr + n];
    state.tmr[n] = in.words[kTmr + n];
    state.irr[n] = in.words[kIrr + n];
  }
  for (unsigned n = 0; n < kLvtCount; ++n) state.lvt[n] = in.words[kLvtFirst + n];
  state.timer.divide = in.words[kDivide];
  state.timer.mode = modeOf(state.lvt[kLvtTimer]);
  state.timer.initialCount = state.timer.mode == Mode::tscDeadline ? 0 : in.words[kInitialCount];
  state.timer.tscDeadline = state.timer.mode == Mode::tscDeadline ? in.tscDeadline : 0;
  state.timer.remaining = remainingOf(state.timer, in.words[kCurrentCount]);
  restore(state);
  timer_.tscChanged();
}

}  // namespace lodge
