// SPDX-License-Identifier: Apache-2.0
// MTRRs and PAT: kept and checked as the processor does (SDM vol. 3, 12.11 and 12.12); Lodge's memory is write-back
// anyway.
#include "x86/msr.h"
#include "x86/paging.h"

namespace lodge::x86 {

namespace {

enum : std::uint32_t {
  kCapability = 0xfe,
  kPhysFirst = 0x200,
  kPat = 0x277,
  kDefType = 0x2ff,
};
constexpr unsigned kVariableRanges = 8;
// VCNT, fixed ranges, write combining.
constexpr std::uint64_t kCapabilityValue = kVariableRanges | 1 << 8 | 1 << 10;
constexpr std::uint64_t kFixedEnable = 1 << 10, kEnable = 1 << 11;

// Index into CpuState::mtrrFixed, or -1.
int fixedIndex(std::uint32_t number) {
  if (number == 0x250) return 0;
  if (number == 0x258 || number == 0x259) return static_cast<int>(number - 0x257);
  if (number >= 0x268 && number <= 0x26f) return static_cast<int>(number - 0x265);
  return -1;
}

std::uint64_t* storage(CpuState& state, std::uint32_t number) {
  int fixed = fixedIndex(number);
  if (fixed >= 0) return &state.mtrrFixed[fixed];
  if (number >= kPhysFirst && number < kPhysFirst + 2 * kVariableRanges) {
    unsigned range = (number - kPhysFirst) / 2;
    return (number & 1) == 0 ? &state.mtrrPhysBase[range] : &state.mtrrPhysMask[range];
  }
  if (number == kPat) return &state.pat;
  return number == kDefType ? &state.mtrrDefType : nullptr;
}

// UC, WC, WT, WP, WB; PAT also knows UC-.
bool validType(std::uint64_t type, bool isPat) {
  return type <= 1 || (type >= 4 && type <= 6) || (isPat && type == 7);
}

bool validTypes(std::uint64_t eight, bool isPat) {
  for (unsigned i = 0; i < 64; i += 8) {
    if (!validType((eight >> i) & 0xff, isPat)) return false;
  }
  return true;
}

bool valid(const Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  std::uint64_t beyond = reservedAddressBits(cpu) | 0xfff0'0000'0000'0000;
  if (number == kPat) return validTypes(value, true);
  if (fixedIndex(number) >= 0) return validTypes(value, false);
  if (number == kDefType) return (value & ~(0xffull | kFixedEnable | kEnable)) == 0 && validType(value & 0xff, false);
  if ((number & 1) != 0) return (value & (beyond | 0x7ff)) == 0;
  return (value & (beyond | 0xf00)) == 0 && validType(value & 0xff, false);
}

}  // namespace

MsrResult readMemoryTypeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  if (number == kCapability) {
    value = kCapabilityValue;
    return MsrResult::done;
  }
  const std::uint64_t* from = storage(cpu.state, number);
  if (!from) return MsrResult::unknown;
  value = *from;
  return MsrResult::done;
}

MsrResult writeMemoryTypeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  if (number == kCapability) return MsrResult::fault;
  std::uint64_t* to = storage(cpu.state, number);
  if (!to) return MsrResult::unknown;
  if (!valid(cpu, number, value)) return MsrResult::fault;
  *to = value;
  return MsrResult::done;
}

}  // namespace lodge::x86
