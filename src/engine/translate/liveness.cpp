// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/liveness.h"

#include "base/units.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::uint32_t kAll = flag::arithmetic;
/// Instructions looked at beyond a block's exit.
constexpr unsigned kLookAhead = 16;

bool isJump(const GuestInstruction& i) {
  return i.decoded.info->form == Form::j && i.decoded.info->op != Op::call;
}

/// Follows the code from a block's exit until every flag is decided.
class LookAhead {
 public:
  LookAhead(Block& block, const std::uint8_t* bytes, std::uint64_t features)
      : block_(block), bytes_(bytes), features_(features) {}

  /// Which of `open` flags may be read from `rip` on.
  std::uint32_t live(std::uint64_t rip, std::uint32_t open) {
    std::uint32_t result = 0;
    while (open != 0) {
      std::uint64_t offset = rip - block_.page;
      GuestInstruction i;
      if (offset >= kPageSize || budget_ == 0) return result | open;
      --budget_;
      if (!decodeOne(i, bytes_, static_cast<unsigned>(offset), block_.key, features_)) return result | open;
      block_.dependsOn |= granulesOf(i.offset, i.decoded.length);
      if (i.treatment == Treatment::interpret) return result | open;
      FlagEffects e = flagEffects(i.decoded);
      result |= open & e.read;
      open &= ~(e.read | e.written | e.undefined);
      if (isJump(i) && i.decoded.info->op != Op::jmp) result |= live(branchTarget(block_, i), open);
      if (i.endsBlock && !i.changesKey && i.decoded.info->op != Op::jmp) return result | open;
      rip = i.decoded.info->op == Op::jmp ? branchTarget(block_, i) : block_.nextRip(i);
    }
    return result;
  }

 private:
  Block& block_;
  const std::uint8_t* bytes_;
  std::uint64_t features_;
  unsigned budget_ = kLookAhead;
};

/// Flags that are live where control leaves the block after instruction n, and into other parts of it.
struct Exits {
  std::uint32_t taken = 0;  ///< at a direct branch's target outside the block
  std::uint32_t next = 0;   ///< at the next instruction outside the block
  int target = -1;          ///< of a direct branch: its index in the block
};

Exits exitsOf(Block& block, unsigned n, const std::uint8_t* bytes, std::uint64_t features) {
  const GuestInstruction& i = block.instructions[n];
  Exits exits;
  bool direct = i.decoded.info->form == Form::j;
  if (direct) exits.target = block.indexOf(branchTarget(block, i));
  if (i.treatment == Treatment::interpret) {
    exits.taken = exits.next = kAll;
    return exits;
  }
  if (direct && exits.target < 0) exits.taken = LookAhead(block, bytes, features).live(branchTarget(block, i), kAll);
  if ((!i.endsBlock && n + 1 == block.count) || i.changesKey)
    exits.next = LookAhead(block, bytes, features).live(block.nextRip(i), kAll);
  return exits;
}

std::uint32_t liveAfter(const Block& block, unsigned n, const Exits& exits) {
  const GuestInstruction& i = block.instructions[n];
  std::uint32_t live = exits.taken | exits.next;
  if (i.decoded.info->form == Form::j) {
    if (exits.target >= 0) live |= block.instructions[static_cast<unsigned>(exits.target)].liveIn;
  } else if (i.endsBlock && !i.changesKey) {
    live = kAll;
  }
  if (!i.endsBlock && n + 1 < block.count) live |= block.instructions[n + 1].liveIn;
  return live;
}
}  // namespace

void solveLiveness(Block& block, const std::uint8_t* pageBytes, std::uint64_t features, bool strict) {
  std::array<Exits, Block::kMaxInstructions> exits;
  bool goesBack = false;
  for (unsigned n = 0; n < block.count; ++n) {
    exits[n] = strict ? Exits{kAll, kAll} : exitsOf(block, n, pageBytes, features);
    goesBack = goesBack || (exits[n].target >= 0 && exits[n].target <= static_cast<int>(n));
    block.instructions[n].liveIn = block.instructions[n].liveOut = strict ? kAll : 0;
  }
  if (strict) return;
  // Backward; again while branches back inside the block bring news. Sets only grow from 0, so this ends.
  bool changed = true;
  while (changed) {
    changed = false;
    for (unsigned n = block.count; n-- > 0;) {
      GuestInstruction& i = block.instructions[n];
      std::uint32_t out = liveAfter(block, n, exits[n]);
      std::uint32_t in = kAll;
      if (i.treatment != Treatment::interpret) {
        FlagEffects e = flagEffects(i.decoded);
        in = ((out & ~(e.written | e.undefined)) | e.read) & kAll;
      }
      if (in != i.liveIn || out != i.liveOut) changed = goesBack;
      i.liveIn = in;
      i.liveOut = out;
    }
  }
}

}  // namespace lodge::translate
