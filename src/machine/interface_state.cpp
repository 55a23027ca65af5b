// SPDX-License-Identifier: Apache-2.0
#include "machine/interface_state.h"

namespace lodge {

using state::Archive;

namespace {

void transferRegisters(Archive& a, std::vector<MsrValue>& registers) {
  constexpr std::size_t kMostRegisters = 256;
  std::size_t number = a.count(registers.size(), kMostRegisters, "the number of model-specific registers");
  if (a.loading()) registers.assign(number, {});
  for (MsrValue& each : registers) a(each.number, each.value);
}

void transferEvents(Archive& a, NestedState::Events& e) {
  a(e.exceptionInjected, e.exceptionPending, e.exception, e.hasErrorCode, e.errorCode, e.hasPayload, e.payload);
  a(e.interruptInjected, e.interrupt, e.interruptIsSoft, e.nmiInjected, e.nmisPending, e.smiPending, e.initLatched);
  a(e.tripleFault);
  constexpr std::uint8_t kExceptions = 32, kNmi = 2, kMostNmis = 2;  // one that waits, and one that is being delivered
  a.require(e.exception < kExceptions && e.exception != kNmi && e.nmisPending <= kMostNmis,
            "the events on their way to the CPU");
}

}  // namespace

void transfer(Archive& a, NestedState& s) {
  constexpr std::size_t kMostBlocks = 1 << 16;
  a(s.inUse, s.flags, s.format, s.header, s.blocks);
  transferRegisters(a, s.registers);
  transferEvents(a, s.events);
  a.require(s.inUse <= Virtualization::vmx, "what of the processor's virtualization is in use");
  bool known = s.format <= NestedState::kSvm || s.format == NestedState::kNone;
  a.require(known && s.blocks.size() <= kMostBlocks, "the form of nested virtualization's state");
  a.require(!s.runsGuest() || s.inUse != Virtualization::none, "a nested guest of a CPU that has none");
}

void transferHyperv(Archive& a, InterfaceState& s) {
  transferRegisters(a, s.hyperv);
}

}  // namespace lodge
