// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/liveness.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::uint32_t kAll = flag::arithmetic;

/// Live flags where a direct branch of the block leads.
std::uint32_t liveAtTarget(const Block& block, std::uint64_t target) {
  int index = block.indexOf(target);
  return index >= 0 ? block.instructions[static_cast<unsigned>(index)].liveIn : kAll;
}

std::uint32_t liveAfter(const Block& block, unsigned n) {
  const GuestInstruction& i = block.instructions[n];
  std::uint32_t live = 0;
  bool goesOn = !i.endsBlock;
  if (i.decoded.info->form == Form::j && i.decoded.info->op != Op::call)
    live |= liveAtTarget(block, branchTarget(block, i));
  if (i.endsBlock && i.decoded.info->op != Op::jmp) live = kAll;
  if (goesOn) live |= n + 1 < block.count ? block.instructions[n + 1].liveIn : kAll;
  return live;
}
}  // namespace

void solveLiveness(Block& block) {
  // Backward; again while branches backwards inside the block bring news. Sets only grow from 0, so this ends.
  bool changed = true;
  while (changed) {
    changed = false;
    for (unsigned n = block.count; n-- > 0;) {
      GuestInstruction& i = block.instructions[n];
      std::uint32_t out = liveAfter(block, n);
      std::uint32_t in = kAll;
      if (i.treatment != Treatment::interpret) {
        FlagEffects e = flagEffects(i.decoded);
        in = ((out & ~(e.written | e.undefined)) | e.read) & kAll;
      }
      if (in != i.liveIn || out != i.liveOut) changed = true;
      i.liveIn = in;
      i.liveOut = out;
    }
  }
}

}  // namespace lodge::translate
