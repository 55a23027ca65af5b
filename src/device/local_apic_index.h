// SPDX-License-Identifier: Apache-2.0
// The registers of a local APIC by number. For what knows it from inside; others have x86/local_apic.h.
#pragma once

namespace lodge::local_apic {

/// Offset in the page >> 4 (SDM vol. 3, table 11-1) = MSR - 0x800 (table 11-6); the index of
/// x86::LocalApicRegisters::words. Those of several words have the first one's.
enum Index : unsigned {
  kId = 0x02,
  kVersion = 0x03,
  kTaskPriority = 0x08,
  kArbitration = 0x09,
  kProcessorPriority = 0x0a,
  kEoi = 0x0b,
  kRemoteRead = 0x0c,
  kLogicalDestination = 0x0d,
  kDestinationFormat = 0x0e,
  kSpurious = 0x0f,
  kIsr = 0x10,
  kTmr = 0x18,
  kIrr = 0x20,
  kErrorStatus = 0x28,
  kCommand = 0x30,
  kCommandHigh = 0x31,
  kLvtFirst = 0x32,
  kLvtLast = 0x37,
  kInitialCount = 0x38,
  kCurrentCount = 0x39,
  kDivide = 0x3e,
  kSelfIpi = 0x3f,
};

}  // namespace lodge::local_apic
