// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/compare.h"

#include <fmt/format.h>

#include <cstring>

#include "tests/differential/descriptors.h"
#include "x86/instruction.h"

namespace lodge::differential {

namespace {

constexpr std::string_view kLastPage = "an access at the end of the canonical half: #GP or, on AMD, #PF";
constexpr std::string_view kMaskmov = "MASKMOV: whether masked-off bytes fault is the processor's choice";

constexpr std::string_view kNotCompared[] = {
    "x87 FOP, FIP and FDP in the XSAVE image: AMD leaves them unless an exception is pending",
    "MXCSR_MASK, reserved bytes and XSTATE_BV in the XSAVE image: the processor's or the kernel's choice",
    "the low 12 bits of CR2: which byte of an access of several parts is named is the processor's choice",
    "bit 0 of a page fault's error code beyond the user half: Linux sets it, so that its layout does not show",
    "the error code of exceptions other than #NP, #SS, #GP and #PF, which have none or 0",
    "with --kernel: accessed and dirty bits that the translator sets for a page that is not reached after all",
    "with --lax-flags: arithmetic flags at faults of instructions that access memory"};

constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// x87 FOP, FIP and FDP (FXSAVE bytes 6..23) are not compared: AMD leaves them unless an exception is pending, and an
// engine that runs the instruction elsewhere in memory would store that place.
bool sameVector(const std::byte* a, const std::byte* b, std::string& where) {
  if (std::memcmp(a, b, kVectorBytes) == 0) return true;
  for (std::size_t i = 0; i < kVectorBytes; ++i) {
    if (i % 64 == 0 && std::memcmp(a + i, b + i, 64) == 0) {
      i += 63;
      continue;
    }
    if (a[i] == b[i] || (i >= 6 && i < 24) || (i >= 28 && i < 32)) continue;
    if (i >= 416 && i < 576) continue;  // reserved, and the header: which components are in their initial state
    if (i >= 32 && i < 160 && i % 16 >= 10) continue;
    where += fmt::format(" vector[{}]: host {:02x} guest {:02x}", i, static_cast<unsigned>(a[i]),
                         static_cast<unsigned>(b[i]));
    return false;
  }
  return true;
}

/// The instruction at which an outcome ended, if it lies in the snippet; or in another of its batch, where a jump
/// astray may have led.
bool stoppedAt(const Snippet& s, const Outcome& outcome, Comparing how, x86::Instruction& i) {
  std::uint64_t offset = outcome.after.rip - s.before.rip;
  const Snippet* at = &s;
  if (offset >= s.length && !how.kernel) {
    std::uint16_t code = outcome.selectors[x86::cs];
    std::uint64_t base = s.code32 ? kCode32Base : kCodeBase, slot = (outcome.after.rip - base) / kSlotBytes;
    offset = (outcome.after.rip - base) % kSlotBytes;
    if (s.code16) {
      slot = (code & 4) != 0 ? code >> 3 : kBatch;
      offset = outcome.after.rip;
    }
    if (slot >= how.batch.size() || offset >= kSlotBytes) return false;
    at = &how.batch[slot];
  }
  return x86::decode(at->code + offset, 15, codeSize(s), i) == x86::DecodeStatus::ok;
}

/// Whether an instruction of the snippet begins there.
bool isBoundary(const Snippet& s, std::uint64_t offset) {
  x86::Instruction i{};
  unsigned at = 0;
  for (; at < offset; at += i.length) {
    if (x86::decode(s.code + at, 15, codeSize(s), i) != x86::DecodeStatus::ok) return true;
  }
  return at == offset;
}

bool isLastPage(const Outcome& o) {
  return o.faultAddress >> 12 == 0x7ffff'ffff;
}

/// FXSAVE and FXRSTOR at a misaligned address with EFLAGS.AC: #GP or #AC (SDM vol. 2, FXSAVE).
bool eitherAlignmentFault(const Outcome& host, const Outcome& guest) {
  auto fits = [](const Outcome& o) { return o.vector == 13 || o.vector == 17; };
  return fits(host) && fits(guest) && host.vector != guest.vector && host.after.rip == guest.after.rip;
}

/// Faults that an instruction may raise after the soft TLB's probe. Without strict-flags, the probe may have left the
/// arithmetic flags that the instruction sets anyway in any state.
bool hidesFlags(std::uint32_t vector) {
  return vector == 0 || vector == 12 || vector == 13 || vector == 14 || vector == 16 || vector == 17 || vector == 19;
}

}  // namespace

bool endsAstray(const Snippet& s, const Outcome& outcome) {
  std::uint16_t code = s.inPatchArea ? kPatch16 : code16Selector(s.slot);
  // The INT3 that ends it has been executed.
  return outcome.after.rip - s.before.rip > s.length + 1 || (s.code16 && outcome.selectors[x86::cs] != code);
}

bool readsClock(const Snippet& s) {
  x86::Instruction i{};
  for (unsigned at = 0; at < s.length; at += i.length) {
    if (x86::decode(s.code + at, 15, codeSize(s), i) != x86::DecodeStatus::ok) break;
    if (i.info->op == x86::Op::rdtsc) return true;
  }
  return false;
}

/// The translator runs x87 instructions without recording their addresses (x86::X87Pointers), and FNSTENV and FNSAVE
/// after one then show those of an older one. Selectors that FRSTOR loaded are lost whenever vector state is parked, as
/// they are when an operating system saves a process with XSAVE64.
bool showsX87Pointers(const Snippet& s) {
  bool shows = false, others = false;
  x86::Instruction i{};
  for (unsigned at = 0; at < s.length; at += i.length) {
    if (x86::decode(s.code + at, 15, codeSize(s), i) != x86::DecodeStatus::ok) break;
    bool has = i.info->memoryBytes == x86::memory_size::x87Environment ||
               i.info->memoryBytes == x86::memory_size::x87State || i.info->memoryBytes == x86::memory_size::fxsaveArea;
    bool stores = has && x86::memoryOperand(i).write;
    shows = shows || stores;
    others = others || (!stores && (has || (i.info->attributes & x86::attribute::x87) != 0));
  }
  return shows && others;
}

std::span<const std::string_view> notCompared() {
  return kNotCompared;
}

std::string_view reasonToSkip(const Snippet& snippet, const Outcome& host, Comparing how) {
  if (how.guests) return "";
  if (host.vector == 1) return "jumped into an INT1, which the host's hypervisor handles";
  if (how.protectedMode && host.selectors[x86::cs] == kUserCs)
    return "jumped into 64-bit code, which protected mode does not have";
  if (host.vector == 14 && isLastPage(host)) return kLastPage;
  x86::Instruction i{};
  if (!stoppedAt(snippet, host, how, i)) return "";
  bool inside = host.after.rip - snippet.before.rip < snippet.length;
  if (inside && !snippet.inPatchArea && host.vector != 3 && !isBoundary(snippet, host.after.rip - snippet.before.rip))
    return "an instruction that was not chosen: a changed return address led there";
  if (i.info->op == x86::Op::maskmov) return kMaskmov;
  bool area = x86::memoryOperand(i).bytes > 64;
  if (area && host.vector == 14)
    return "FXSAVE, FNSAVE and their kin: which of several bad pages faults is the processor's choice";
  return "";
}

std::string difference(const Outcome& host, const Outcome& guest, Comparing how) {
  std::string text;
  if (host.vector != guest.vector) {
    text += fmt::format(" exception: host {} (rip {:x} address {:x}) guest {} ({:x})", host.vector, host.after.rip,
                        host.faultAddress, guest.vector, guest.faultAddress);
  }
  if (host.vector == guest.vector && host.vector == 14) {
    // For addresses beyond the user half's last page the host's kernel reports P = 1, so that its layout does not show.
    std::uint32_t hidden = host.faultAddress >= 0x7fff'ffff'f000 ? 1 : 0;
    if ((host.errorCode | hidden) != (guest.errorCode | hidden))
      text += fmt::format(" error code: host {:x} guest {:x}", host.errorCode, guest.errorCode);
    // Which byte of an access of several parts is named is the processor's choice; the page is not.
    if ((host.faultAddress ^ guest.faultAddress) >> 12 != 0)
      text += fmt::format(" cr2: host {:x} guest {:x}", host.faultAddress, guest.faultAddress);
  }
  auto compare = [&](const char* name, std::uint64_t a, std::uint64_t b) {
    if (a != b) text += fmt::format(" {}: host {:x} guest {:x}", name, a, b);
  };
  if (host.vector == guest.vector && host.vector >= 11 && host.vector <= 13)
    compare("error code", host.errorCode, guest.errorCode);
  // In 32-bit code the upper halves, and R8-R15, are undefined.
  std::uint64_t seen = how.code32 ? 0xffff'ffff : ~std::uint64_t{0};
  for (int i = 0; i < (how.code32 ? 8 : 16); ++i)
    compare(kNames[i], host.after.gpr[i] & seen, guest.after.gpr[i] & seen);
  compare("rip", host.after.rip, guest.after.rip);
  std::uint64_t hidden = how.laxFlags && hidesFlags(host.vector) ? x86::flag::arithmetic : 0;
  compare("rflags", host.after.rflags | hidden, guest.after.rflags | hidden);
  constexpr const char* kSegments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  // The host's kernel returns with IRET, which makes 0 of all null selectors (SDM vol. 2, IRET).
  auto loaded = [](std::uint16_t selector) { return selector < 4 ? std::uint16_t{0} : selector; };
  for (std::size_t i = 0; i < host.selectors.size(); ++i)
    compare(kSegments[i], loaded(host.selectors[i]), loaded(guest.selectors[i]));
  compare("fs", host.after.fsBase, guest.after.fsBase);
  compare("gs", host.after.gsBase, guest.after.gsBase);
  if (host.dataHash != guest.dataHash) text += " memory differs";
  if (host.patchHash != guest.patchHash) text += " code differs";
  compare("accesses of the device", host.mmioAccesses, guest.mmioAccesses);
  if (host.mmioHash != guest.mmioHash) text += " accesses of the device differ";
  for (std::size_t i = 0; i < host.entries.size(); ++i) {
    // A shared probe may mark a page as used that is not reached after all; never the other way.
    constexpr std::uint64_t kUsed = 0x60;
    bool same =
        ((host.entries[i] ^ guest.entries[i]) & ~kUsed) == 0 && (host.entries[i] & ~guest.entries[i] & kUsed) == 0;
    if (!same) text += fmt::format(" entry {}: host {:x} guest {:x}", i, host.entries[i], guest.entries[i]);
  }
  for (std::size_t i = 0; host.system != guest.system && i < host.system.size(); ++i)
    compare(fmt::format("system[{}]", i).c_str(), host.system[i], guest.system[i]);
  sameVector(host.after.vector.data(), guest.after.vector.data(), text);
  return text;
}

bool onlyAdjustedFlagsDiffer(Outcome host, Outcome guest, Comparing how) {
  constexpr std::uint64_t kUndefined = x86::flag::of | x86::flag::sf | x86::flag::zf | x86::flag::pf;
  host.after.rflags |= kUndefined;
  guest.after.rflags |= kUndefined;
  return difference(host, guest, how).empty();
}

namespace {
/// Whether the snippet has an instruction of which `is` is true.
template <typename Predicate>
bool contains(const Snippet& s, Predicate is) {
  x86::Instruction i{};
  for (unsigned at = 0; at < s.length; at += i.length) {
    if (x86::decode(s.code + at, 15, codeSize(s), i) != x86::DecodeStatus::ok) break;
    if (is(i)) return true;
  }
  return false;
}

bool isDecimal(const Snippet& s) {
  return contains(s, [](const x86::Instruction& i) {
    x86::Op op = i.info->op;
    return op == x86::Op::daa || op == x86::Op::das || op == x86::Op::aaa || op == x86::Op::aas;
  });
}

bool hasCountedLoop(const Snippet& s) {
  return contains(s, [](const x86::Instruction& i) {
    return i.info->op == x86::Op::loop || i.info->op == x86::Op::loope || i.info->op == x86::Op::loopne;
  });
}

/// SYSRET into 32-bit code.
bool entersCode32(const Snippet& s) {
  return contains(s, [](const x86::Instruction& i) { return i.info->op == x86::Op::sysret && i.operandSize != 8; });
}

bool onlyMemoryDiffers(Outcome host, const Outcome& guest, Comparing how) {
  host.dataHash = guest.dataHash;
  return difference(host, guest, how).empty();
}

/// REP MOVS from one address of some memory to another of the same memory.
bool movesBetweenAliases(const Snippet& s, const Outcome& host) {
  auto inAlias = [](std::uint64_t address) { return address >= kDataAlias && address <= kDataAlias + kDataBytes; };
  return inAlias(host.after.gpr[x86::rsi]) != inAlias(host.after.gpr[x86::rdi]) &&
         contains(s, [](const x86::Instruction& i) { return i.info->op == x86::Op::movs && i.repeat != 0; });
}

/// VPBROADCASTB, W, D and Q of ESP or RSP. With a mask, and where instructions are not yet in its cache of decoded
/// ones, a Zen 5 gives what the register was before the pushes and pops right before (seen natively, without any
/// engine).
bool broadcastsStackPointer(const Snippet& s) {
  return contains(s, [](const x86::Instruction& i) {
    bool broadcast = i.encoding == x86::Encoding::evex && i.map == 2 && i.opcode >= 0x7a && i.opcode <= 0x7c;
    return broadcast && i.opmask != 0 && i.isRegisterForm() && i.rm == x86::rsp;
  });
}

/// An operand in FS or GS of 32-bit code, of 4 GiB, that begins before their end and ends after it (SDM vol. 3, 5.3:
/// "may or may not cause the indicated exceptions").
bool wrapsInSegment(const x86::Instruction& i, const Outcome& host) {
  if (i.codeSize != x86::CodeSize::bits32 || i.addressSize != 4) return false;
  if (i.segmentOverride != x86::fs && i.segmentOverride != x86::gs) return false;
  auto read = [&](unsigned r) { return r == x86::kNoRegister ? 0 : host.after.gpr[r]; };
  std::uint64_t offset = static_cast<std::uint64_t>(i.displacement) + read(i.base) + read(i.index) * i.scale;
  std::uint64_t bytes = x86::memoryOperand(i).bytes;
  if (!i.memory) {  // strings
    offset = read(x86::rsi);
    bytes = i.operandSize;
  }
  return (offset & 0xffff'ffff) + bytes > 1ull << 32;
}

bool isFarTransfer(const x86::Instruction& i) {
  using x86::Op;
  Op op = i.info->op;
  return op == Op::call_far || op == Op::call_far_indirect || op == Op::ret_far || op == Op::iret;
}

/// From 16-bit code into 64-bit code.
bool callsAcrossModes(const Snippet& s, const Outcome& guest) {
  return s.code16 && contains(s, [&](const x86::Instruction& i) {
           bool call = i.info->op == x86::Op::call_far || i.info->op == x86::Op::call_far_indirect;
           return call && (guest.selectors[x86::cs] == kUserCs || (i.immediate2 | 3) == kUserCs);
         });
}

/// Both fault at the same instruction, with the same registers, on the stack (#SS, #PF, #AC) or on what was read from
/// it
/// (#NP, #GP).
bool onlyFaultDiffers(Outcome host, const Outcome& guest, Comparing how) {
  auto fits = [](const Outcome& o) { return (o.vector >= 11 && o.vector <= 14) || o.vector == 17; };
  if (!fits(host) || !fits(guest)) return false;
  host.vector = guest.vector;
  host.errorCode = guest.errorCode;
  host.faultAddress = guest.faultAddress;
  host.dataHash = guest.dataHash;
  host.patchHash = guest.patchHash;
  return difference(host, guest, how).empty();
}

bool onlyUpperHalvesDiffer(Outcome host, Outcome guest, Comparing how) {
  for (Outcome* side : {&host, &guest}) {
    for (std::uint64_t& r : side->after.gpr) r &= 0xffff'ffff;
  }
  return difference(host, guest, how).empty();
}
}  // namespace

std::string_view reasonToDiffer(const Snippet& snippet, const Outcome& host, const Outcome& guest, Comparing how) {
  if (how.guests && host.vector == guest.vector && host.vector >= 0x100) return "endless, or a shutdown";
  if (!how.translator && guest.skipped) return "a long loop, for which the interpreter did not get the time";
  if (how.guests && (host.vector == 0x101 || guest.vector == 0x101))
    return "a long loop, which one did not get the time for";
  // What lies there may be what earlier snippets left.
  constexpr std::size_t kCr3 = 2;
  constexpr std::uint64_t kRoot = 0x1000;
  if (how.kernel && how.code32 && (host.system[kCr3] != kRoot || guest.system[kCr3] != kRoot))
    return "CR3 was loaded with another address than that of the page tables";
  if (how.kernel && host.vector == 1 && readsClock(snippet)) return "the clock, seen by a trap right after RDTSC";
  if (how.translator && showsX87Pointers(snippet))
    return "x87 instruction and data pointers after instructions that the translator runs itself";
  if (how.kernel && entersCode32(snippet) && onlyUpperHalvesDiffer(host, guest, how))
    return "upper halves of registers, which are undefined in 32-bit code (SDM vol. 1, 3.4.1.1)";
  if (guest.vector >= 0x100 && hasCountedLoop(snippet)) return "a long loop, for which there was not the time";
  if (host.vector == 13 && guest.vector == 14 && isLastPage(guest)) return kLastPage;
  if (!how.guests && host.vector == 14 && guest.vector == 14 && guest.faultAddress - kKernel32Base < kKernelBytes)
    return "an address at which the guest's kernel lies";
  if (how.code32 && isDecimal(snippet) && onlyAdjustedFlagsDiffer(host, guest, how))
    return "flags that DAA, DAS, AAA and AAS leave undefined";
  if (!how.guests && broadcastsStackPointer(snippet))
    return "a masked broadcast of the stack pointer: the host's error";
  if (how.protectedMode && guest.selectors[x86::cs] == kUserCs)
    return "jumped into 64-bit code, which protected mode does not have";
  if (!how.guests && callsAcrossModes(snippet, guest))
    return "far CALL from a 16-bit stack into 64-bit code: AMD pushes as 64-bit code does (SDM vol. 2, CALL: as the "
           "code before)";
  if (eitherAlignmentFault(host, guest)) return "FXSAVE and FXRSTOR at a misaligned address with AC: #GP or #AC";
  if (movesBetweenAliases(snippet, host) && onlyMemoryDiffers(host, guest, how))
    return "REP MOVS between aliases of the same memory: the processor compares linear addresses only before it moves "
           "more than an element at a time";
  x86::Instruction last{};
  bool masked = stoppedAt(snippet, host, how, last) &&
                (last.info->op == x86::Op::vmaskmov ||
                 (last.opmask != 0 && (last.info->attributes & x86::attribute::suppressesFaults) != 0));
  bool alignment = host.vector == 17 && stoppedAt(snippet, host, how, last) && last.opmask != 0 && last.memory;
  if (masked && (host.vector == 12 || host.vector == 13) && (snippet.code16 || snippet.code32))
    return "a masked operand across the segment's end: whether masked-off elements fault is the processor's choice";
  if (host.vector == 13 && how.translator && stoppedAt(snippet, host, how, last) && wrapsInSegment(last, host))
    return "an operand in FS or GS that runs over the end of 4 GiB: whether it faults is the processor's choice";
  if (alignment)
    return "a masked operand with AC: whether it is aligned as a whole or by elements is the processor's choice";
  if (!stoppedAt(snippet, guest, how, last)) return "";
  if (last.info->op == x86::Op::maskmov) return kMaskmov;
  if (host.vector == 13 && guest.vector == 14 && (last.segmentOverride == x86::fs || last.segmentOverride == x86::gs))
    return "an offset that is not canonical but with the segment's base: AMD may raise #GP";
  if (last.info->op == x86::Op::popa && host.vector == guest.vector)
    return "POPA: whether registers popped before a fault keep their values is the processor's choice";
  if (last.info->op == x86::Op::pusha && host.vector == guest.vector && onlyMemoryDiffers(host, guest, how))
    return "PUSHA: whether stores before a fault happen is the processor's choice";
  if (isFarTransfer(last) && onlyFaultDiffers(host, guest, how))
    return "far CALL, RET and IRET: which of several faults comes first, and whether CS was pushed by then, is the "
           "processor's choice (AMD reads an outer stack's pointer before it looks at CS)";
  bool bothFault = host.vector >= 12 && guest.vector >= 12 && host.vector <= 17 && guest.vector <= 17;
  if (last.info->op == x86::Op::pusha && bothFault && host.vector == guest.vector)
    return "PUSHA: whether what was pushed before a fault stays is the processor's choice";
  if (bothFault && last.info->op == x86::Op::vmaskmov && how.code32)
    return "VMASKMOV across the segment's end: whether masked-off elements fault is the processor's choice";
  if (bothFault && host.after.rip == guest.after.rip && x86::memoryOperand(last).bytes > 8 && how.code32)
    return "10 bytes, FXSAVE, FNSTENV and their kin across the segment's end: which fault comes first is the "
           "processor's choice";
  if (guest.vector == 17 && x86::memoryOperand(last).bytes > 64)
    return "from which alignment on FRSTOR and its kin raise #AC is the processor's choice";
  return "";
}

std::string describe(const Snippet& s) {
  std::string text;
  for (unsigned at = 0; at < s.length;) {
    x86::Instruction i{};
    if (x86::decode(s.code + at, s.length - at, codeSize(s), i) != x86::DecodeStatus::ok) {
      text += " (invalid)";
      for (; at < s.length; ++at) text += fmt::format(" {:02x}", s.code[at]);
      break;
    }
    text += fmt::format(" {}[", i.info->mnemonic);
    for (unsigned k = 0; k < i.length; ++k) text += fmt::format("{}{:02x}", k ? " " : "", s.code[at + k]);
    text += "]";
    at += i.length;
  }
  return text;
}

std::string describeStart(const Snippet& s) {
  std::string text = fmt::format("rip={:x} fs={:x} gs={:x}", s.before.rip, s.fsSelector, s.gsSelector);
  for (int i = 0; i < 16; ++i) text += fmt::format(" {}={:x}", kNames[i], s.before.gpr[i]);
  return text + fmt::format(" rflags={:x} fsbase={:x} gsbase={:x}", s.before.rflags, s.before.fsBase, s.before.gsBase);
}

}  // namespace lodge::differential
