// SPDX-License-Identifier: Apache-2.0
// Hardware task switches (SDM vol. 3, chapter 7), for this folder's own use.
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/descriptor.h"

namespace lodge::x86 {

struct TaskSwitch {
  enum class Kind : std::uint8_t { jump, call, iret, interrupt };
  Kind kind;
  std::uint16_t selector;   ///< of the new TSS
  Descriptor tss;           ///< checked by the caller for type, privilege and presence
  std::uint64_t returnRip;  ///< EIP and EFLAGS to be saved in the old task
  std::uint64_t flags;
  std::uint32_t ext;  ///< EXT bit of error codes
};

inline bool isAvailableTss(const Descriptor& descriptor) {
  return descriptor.isSystem() && (descriptor.type() & 7) == system_type::tss16;
}
inline bool isBusyTss(const Descriptor& descriptor) {
  return descriptor.isSystem() && (descriptor.type() & 7) == system_type::tss16Busy;
}

/// Switches. False: an exception is in cpu.exception; it belongs to the old task if it came before the switch was
/// committed, and to the new one after (CpuState tells which, as on the real machine).
bool switchTask(Cpu& cpu, const TaskSwitch& request);

}  // namespace lodge::x86
