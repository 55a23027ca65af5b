// SPDX-License-Identifier: Apache-2.0
#include "x86/instruction.h"
#include "x86/opcode_table.h"

namespace lodge::x86 {
namespace {

constexpr bool has(std::uint64_t features, Feature feature) {
  return (features >> static_cast<unsigned>(feature)) & 1;
}

/// The row of 0F `opcode` without a mandatory prefix.
const OpcodeInfo* withoutPrefix(unsigned opcode) {
  const table::Slot& slot = table::kTables.slots[1][opcode];
  return &table::kTables.infos[table::kTables.leaves[table::leafIndex(slot, {})]];
}

}  // namespace

const OpcodeInfo* opcodeForFeatures(const OpcodeInfo& info, std::uint64_t features) {
  bool vexState = (info.attributes & attribute::avx) != 0;
  bool evexState = (info.attributes & attribute::avx512) != 0;
  bool state = (!vexState || has(features, Feature::avx)) && (!evexState || has(features, Feature::avx512));
  if (info.feature == Feature::base || (has(features, info.feature) && state)) return &info;
  switch (info.op) {
    // F3 before BSF and BSR was ignored before these came.
    case Op::tzcnt:
      return withoutPrefix(0xbc);
    case Op::lzcnt:
      return withoutPrefix(0xbd);
    case Op::prefetch:
      return &info;  // a NOP on every processor with long mode
    default:
      return nullptr;
  }
}

}  // namespace lodge::x86
