// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/block.h"

#include <algorithm>

namespace lodge::translate {

using namespace x86;
using namespace x86::attribute;

bool vectorAllowed(const Instruction& i, ModeKey key) {
  std::uint32_t a = i.info->attributes;
  if ((a & (attribute::x87 | attribute::mmx)) != 0 && !key.has(i.info->op == Op::fwait ? ModeKey::fwait : ModeKey::x87))
    return false;
  if ((a & attribute::sse) != 0 && !key.has(ModeKey::sse)) return false;
  if ((a & attribute::avx) != 0 && !key.has(ModeKey::avx)) return false;
  if ((a & attribute::avx512) != 0 && !key.has(ModeKey::avx512)) return false;
  return true;
}

namespace {
/// FNSTENV and friends show or load the x87 instruction and data pointers: the host's addresses must not be seen.
bool touchesX87Pointers(const Instruction& i) {
  return i.info->memoryBytes == memory_size::x87Environment || i.info->memoryBytes == memory_size::x87State;
}

Treatment nativeTreatment(const Instruction& i) {
  if (touchesX87Pointers(i)) return Treatment::interpret;
  if ((i.info->attributes & vsib) != 0) return Treatment::interpret;
  return Treatment::generic;
}

/// BT and friends with a register bit offset address memory beyond their operand.
bool isBitString(const Instruction& i) {
  return i.memory && i.info->form == Form::e_g;
}

/// MOV r/m, Sreg: the selector into a register.
bool isSelectorRead(const Instruction& i) {
  return i.info->form == Form::e_s && !i.memory;
}

Treatment integerTreatment(const Instruction& i, ModeKey key) {
  switch (i.info->op) {
    case Op::push:
    case Op::pop:
      return i.info->form == Form::sreg || i.operandSize != key.wordBytes() ? Treatment::interpret : Treatment::special;
    case Op::leave:
      return i.operandSize != key.wordBytes() ? Treatment::interpret : Treatment::special;
    case Op::lea:
    case Op::nop:
    case Op::prefetch:
    case Op::mov:
    case Op::xchg:
    case Op::bswap:
    case Op::pause:
    case Op::lfence:
    case Op::mfence:
    case Op::sfence:
      return Treatment::special;
    case Op::bt:
    case Op::bts:
    case Op::btr:
    case Op::btc:
      if (!isBitString(i)) return Treatment::generic;
      return i.operandSize >= 4 && i.addressSize == key.wordBytes() ? Treatment::system : Treatment::interpret;
    case Op::cld:
    case Op::std:
      return Treatment::system;
    case Op::enter:
    case Op::pusha:
    case Op::popa:
    case Op::xlat:
    case Op::daa:
    case Op::das:
    case Op::aaa:
    case Op::aas:
    case Op::aam:
    case Op::aad:
    case Op::salc:
    case Op::maskmov:
    case Op::vmaskmov:
    case Op::gather:
      return Treatment::interpret;
    default:
      return Treatment::generic;
  }
}

Treatment branchTreatment(const Instruction& i, ModeKey key) {
  if (i.operandSize != key.wordBytes()) return Treatment::interpret;
  return Treatment::special;
}

/// STAC and CLAC where they change RFLAGS.AC.
bool changesAccessCheck(const Instruction& i, ModeKey key) {
  if (key.has(ModeKey::user) || !key.has(ModeKey::smap)) return false;
  return i.info->op == (key.has(ModeKey::accessCheck) ? Op::clac : Op::stac);
}

Treatment systemTreatment(const Instruction& i, ModeKey key) {
  auto inlineIf = [](bool possible) { return possible ? Treatment::system : Treatment::interpret; };
  bool kernel = !key.has(ModeKey::user);
  switch (i.info->op) {
    case Op::ldmxcsr:
    case Op::stmxcsr:
    case Op::fwait:
    case Op::emms:
      return Treatment::generic;
    case Op::pushf:
    case Op::popf:
      return inlineIf(i.operandSize == key.wordBytes());
    case Op::cli:
    case Op::sti:
      return inlineIf(kernel);
    case Op::movsreg_from:
      return inlineIf(isSelectorRead(i));
    case Op::stac:
    case Op::clac:
      return inlineIf(kernel && key.has(ModeKey::smap));
    case Op::swapgs:
      return inlineIf(kernel && key.has(ModeKey::code64));
    case Op::rdtsc:
    case Op::rdtscp:
      return inlineIf(key.has(ModeKey::timeStamp));
    case Op::rdfsbase:
    case Op::rdgsbase:
    case Op::wrfsbase:
    case Op::wrgsbase:
      return inlineIf(key.has(ModeKey::fsgsbase));
    case Op::syscall:
      return inlineIf(!kernel && key.has(ModeKey::syscall) && key.has(ModeKey::code64));
    case Op::sysret:
      return inlineIf(kernel && key.has(ModeKey::syscall) && i.operandSize == 8);
    default:
      return Treatment::interpret;
  }
}

/// What 32-bit code has, and the rewriter, which writes 64-bit code, knows nothing of.
bool is32BitOnly(const Instruction& i) {
  bool shortIncrement = !i.hasModrm && (i.info->op == Op::inc || i.info->op == Op::dec);
  if (((i.info->attributes & invalid64) != 0 && !shortIncrement) || i.addressSize == 2) return true;
  if (i.memory && i.segment == cs) return true;  // must not be written to
  // The highest bit of a register in the immediate is ignored.
  bool fourth = i.encoding == Encoding::vex && i.map == 3 && i.opcode >= 0x4a && i.opcode <= 0x4c;
  if (fourth && (i.immediate & 0x80) != 0) return true;
  // VEX.W is ignored where it would select the size of a general register.
  bool general = i.info->cls == OpClass::integer || (i.info->attributes & (regIsGpr | rmIsGpr | vvvvIsGpr)) != 0;
  bool lengths = i.map == 3 && (i.opcode == 0x60 || i.opcode == 0x61);  // PCMPESTRx: EAX, EDX or RAX, RDX
  return i.encoding != Encoding::legacy && i.vexW && (general || (lengths && i.encoding == Encoding::vex));
}

bool hasFlatSource(const Instruction& i) {
  return i.segmentOverride != fs && i.segmentOverride != gs && i.segmentOverride != cs;
}

/// REP STOS, REP MOVS and all that do not repeat, if the source's segment has no base.
Treatment stringTreatment(const Instruction& i, ModeKey key) {
  bool known = false;
  switch (i.info->op) {
    case Op::stos:
      known = i.repeat != 0xf2;
      break;
    case Op::movs:
      known = i.repeat != 0xf2 && hasFlatSource(i);
      break;
    case Op::lods:
    case Op::cmps:
      known = i.repeat == 0 && hasFlatSource(i);
      break;
    case Op::scas:
      known = i.repeat == 0;
      break;
    default:
      break;
  }
  return known && i.addressSize == key.wordBytes() ? Treatment::system : Treatment::interpret;
}

Treatment treatmentOf(const Instruction& i, ModeKey key, std::uint64_t features) {
  if (!key.has(ModeKey::code64) && is32BitOnly(i)) return Treatment::interpret;
  if (opcodeForFeatures(*i.info, features) != i.info) return Treatment::interpret;
  if (!vectorAllowed(i, key)) return Treatment::interpret;
  if (i.info->op == Op::maskmov || i.info->op == Op::vmaskmov || i.info->op == Op::gather) return Treatment::interpret;
  switch (i.info->cls) {
    case OpClass::integer:
      return integerTreatment(i, key);
    case OpClass::branch:
      return branchTreatment(i, key);
    case OpClass::native:
      return nativeTreatment(i);
    case OpClass::string:
      return stringTreatment(i, key);
    case OpClass::system:
      return systemTreatment(i, key);
    default:
      return Treatment::interpret;
  }
}

bool endsBlock(const Instruction& i) {
  switch (i.info->op) {
    case Op::jmp:
    case Op::jmp_indirect:
    case Op::call:
    case Op::call_indirect:
    case Op::ret:
    // What never goes on at the next instruction: no use in translating what follows.
    case Op::jmp_far:
    case Op::jmp_far_indirect:
    case Op::call_far:
    case Op::call_far_indirect:
    case Op::ret_far:
    case Op::iret:
    case Op::syscall:
    case Op::sysret:
    case Op::sysenter:
    case Op::sysexit:
    case Op::int_:
    case Op::int3:
    case Op::int1:
    case Op::ud:
    case Op::hlt:
    case Op::rsm:
      return true;
    default:
      return false;
  }
}

bool isCall(const GuestInstruction& i) {
  Op op = i.decoded.info->op;
  return (op == Op::call || op == Op::call_indirect) && i.treatment == Treatment::special && !i.crossesPage;
}

void markLabels(Block& block) {
  for (unsigned n = 0; n < block.count; ++n) {
    GuestInstruction& i = block.instructions[n];
    if (i.decoded.info->form != Form::j || i.decoded.info->op == Op::call) continue;
    int target = block.indexOf(branchTarget(block, i));
    if (target >= 0) block.instructions[static_cast<unsigned>(target)].isLabel = true;
  }
}
}  // namespace

int Block::indexOf(std::uint64_t at) const {
  if (at - page >= kPageSize) return -1;
  auto offset = static_cast<std::uint16_t>(at - page);
  unsigned low = 0;
  unsigned high = count;
  while (low < high) {
    unsigned middle = (low + high) / 2;
    if (instructions[middle].offset < offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && instructions[low].offset == offset ? static_cast<int>(low) : -1;
}

std::uint64_t branchTarget(const Block& block, const GuestInstruction& i) {
  return block.key.wrap(block.nextRip(i) + i.decoded.immediate);
}

std::uint64_t granulesOf(unsigned offset, unsigned length) {
  unsigned first = offset >> 6;
  unsigned last = (offset + length - 1) >> 6;
  if (last > 63) last = 63;
  std::uint64_t upTo = last == 63 ? ~std::uint64_t{0} : (std::uint64_t{1} << (last + 1)) - 1;
  return upTo & ~((std::uint64_t{1} << first) - 1);
}

namespace {
/// `bytes`: of the instruction, `available` of them.
bool decodeFrom(GuestInstruction& i, const std::uint8_t* bytes, unsigned available, unsigned offset, ModeKey key,
                std::uint64_t features) {
  CodeSize size = key.has(ModeKey::code64) ? CodeSize::bits64 : CodeSize::bits32;
  if (decode(bytes, available, size, i.decoded) != DecodeStatus::ok) return false;
  i.bytes = bytes;
  i.offset = static_cast<std::uint16_t>(offset);
  i.isLabel = false;
  i.crossesPage = false;
  i.treatment = treatmentOf(i.decoded, key, features);
  i.changesKey = i.treatment == Treatment::system && changesAccessCheck(i.decoded, key);
  i.endsBlock = i.changesKey || endsBlock(i.decoded);
  i.liveIn = i.liveOut = 0;
  return true;
}
}  // namespace

bool decodeOne(GuestInstruction& i, const std::uint8_t* bytes, unsigned offset, ModeKey key, std::uint64_t features) {
  return decodeFrom(i, bytes + offset, static_cast<unsigned>(kPageSize) - offset, offset, key, features);
}

namespace {
/// An instruction that is none, or goes on in a next page that is not known: the interpreter's, whatever it does.
void interpretRest(GuestInstruction& i, const std::uint8_t* bytes, unsigned offset) {
  i = GuestInstruction{};
  const std::uint8_t ud2[] = {0x0f, 0x0b};  // no operands, no flags
  decode(ud2, sizeof ud2, CodeSize::bits64, i.decoded);
  i.decoded.length = static_cast<std::uint8_t>(std::min<unsigned>(15, static_cast<unsigned>(kPageSize) - offset));
  i.bytes = bytes + offset;
  i.offset = static_cast<std::uint16_t>(offset);
  i.treatment = Treatment::interpret;
  i.endsBlock = true;
}

/// The instruction at the page's end, with bytes of both pages. Only what is simple: the interpreter does the rest.
bool decodeJoined(GuestInstruction& i, Block& block, const std::uint8_t* bytes, unsigned offset, std::uint64_t features,
                  const std::uint8_t* next) {
  auto first = static_cast<unsigned>(kPageSize) - offset;
  if (first >= kMaxInstructionLength) return false;
  for (unsigned n = 0; n < kMaxInstructionLength; ++n)
    block.joined[n] = n < first ? bytes[offset + n] : next[n - first];
  if (!decodeFrom(i, block.joined.data(), kMaxInstructionLength, offset, block.key, features)) return false;
  return i.treatment == Treatment::generic || i.treatment == Treatment::special;
}
}  // namespace

void decodeBlock(Block& block, const std::uint8_t* bytes, std::uint64_t page, unsigned offset, ModeKey key,
                 std::uint64_t features, const std::uint8_t* next) {
  block.page = page;
  block.key = key;
  block.count = 0;
  unsigned at = offset;
  bool isReturnPoint = false;
  while (block.count < Block::kMaxInstructions && at < kPageSize) {
    GuestInstruction& i = block.instructions[block.count];
    if (!decodeOne(i, bytes, at, key, features)) {
      bool joined = next && decodeJoined(i, block, bytes, at, features, next);
      if (!joined) interpretRest(i, bytes, at);
      // What is no instruction by its first bytes needs no more of them.
      i.crossesPage = at + kMaxInstructionLength > kPageSize && (joined || !next);
    }
    i.isLabel = isReturnPoint;
    ++block.count;
    at += i.decoded.length;
    isReturnPoint = block.goesOnAfterCalls && isCall(i);
    if (i.endsBlock && !isReturnPoint) break;
  }
  block.dependsOn = block.count == 0 ? 0 : granulesOf(offset, at - offset);
  markLabels(block);
}

}  // namespace lodge::translate
