// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/generator.h"

#include <cpuid.h>

#include <cstring>
#include <iterator>

#include "tests/differential/descriptors.h"
#include "tests/differential/program.h"

namespace lodge::differential {

using namespace x86;

const Avx512Layout& avx512Layout() {
  static const Avx512Layout layout = [] {
    auto offset = [](unsigned component) {
      unsigned a = 0, b = 0, c = 0, d = 0;
      return __get_cpuid_count(0xd, component, &a, &b, &c, &d) != 0 && a != 0 ? std::size_t{b} : 0;
    };
    return Avx512Layout{offset(5), offset(6), offset(7)};
  }();
  return layout;
}

bool hostExtendsSelectors() {
  static const bool amd = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kAuth = 0x68747541;  // "AuthenticAMD"
    return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == kAuth;
  }();
  return amd;
}

namespace {

constexpr std::string_view kNullBases = "a null selector leaves the host's FS and GS their bases";

bool loadsFsOrGs(const Instruction& i) {
  unsigned segment = i.info->form == Form::sreg ? i.opcode >> 3 & 7u : i.reg & 7u;
  bool load = i.info->op == Op::movsreg_to || (i.info->op == Op::pop && i.info->form == Form::sreg);
  return i.info->op == Op::lfs || i.info->op == Op::lgs || (load && (segment == fs || segment == gs));
}

}  // namespace

std::string_view reasonToLeaveOut(const Instruction& i) {
  bool quad = i.encoding == Encoding::vex && i.map == 3 && (i.opcode == 0x16 || i.opcode == 0x22) && i.vexW;
  if (quad && i.codeSize != CodeSize::bits64) return "VPEXTRQ, VPINSRQ: #UD on AMD, W is ignored on Intel (and here)";
  bool widened = i.encoding == Encoding::evex && i.vexW && i.codeSize != CodeSize::bits64 &&
                 (i.info->attributes & (attribute::regIsGpr | attribute::rmIsGpr)) != 0;
  if (widened) return "W of a general register outside 64-bit mode: #UD on some processors, ignored on others";
  if ((i.info->attributes & attribute::avx512) != 0 && avx512Layout().masks == 0) return "the host lacks it";
  switch (i.info->op) {
    case Op::cpuid:
    case Op::rdtsc:
    case Op::rdtscp:
    case Op::rdpmc:
    case Op::rdpid:
    case Op::xgetbv:
    case Op::rdpkru:
    case Op::wrpkru:
      return "the answer is the model's or the clock's, not the host's";
    case Op::rdrand:
    case Op::rdseed:
      return "random by definition";
    case Op::syscall:
    case Op::sysenter:
    case Op::int_:
    case Op::sysret:
    case Op::sysexit:
    case Op::vmcall:
    case Op::vmmcall:
      return "enters the host's kernel";
    case Op::int1:
      return "the host's kernel takes it for a debugger's";
    case Op::sgdt:
    case Op::sidt:
    case Op::sldt:
    case Op::str:
    case Op::smsw:
      return "the host's kernel answers it (UMIP)";
    case Op::movsreg_from:
    case Op::movsreg_to:
    case Op::lds:
    case Op::les:
    case Op::lfs:
    case Op::lgs:
    case Op::lss:
    case Op::lar:
    case Op::lsl:
    case Op::verr:
    case Op::verw:
    case Op::jmp_far:
    case Op::call_far:
    case Op::jmp_far_indirect:
    case Op::call_far_indirect:
    case Op::ret_far:
    case Op::iret:
      if (!hostHasFsgsbase()) return "the host's FS and GS could not be put back";
      if (hostKeepsNullBases() && loadsFsOrGs(i)) return kNullBases;
      if (i.info->op == Op::lar && !hostLarShowsLimit()) return "bits 19:16 of what LAR gives are undefined";
      if (i.operandSize == 8 && i.memory && x86::memoryOperand(i).bytes > 8)
        return "AMD has no far pointers with 64-bit offsets";
      if ((i.info->op == Op::call_far || i.info->op == Op::call_far_indirect) && !hostExtendsSelectors())
        return "whether a pushed selector is zero-extended is the processor's choice";
      break;
    case Op::push:
    case Op::pop:
      if (i.info->form != Form::sreg) break;
      if (!hostHasFsgsbase()) return "the host's FS and GS could not be put back";
      if (hostKeepsNullBases() && loadsFsOrGs(i)) return kNullBases;
      if (i.info->op == Op::push && i.operandSize == 4 && !hostExtendsSelectors())
        return "whether a pushed selector is zero-extended is the processor's choice";
      break;
    case Op::rdfsbase:
    case Op::rdgsbase:
    case Op::wrfsbase:
    case Op::wrgsbase:
      if (!hostHasFsgsbase()) return "the host does not offer it";
      break;
    case Op::xsave:
    case Op::xsaveopt:
    case Op::xsavec:
    case Op::xsaves:
    case Op::xrstor:
    case Op::xrstors:
      return "the area depends on what the host's kernel tracks; tested by itself";
    case Op::popf:
      return "changes flags (TF, NT, ID) that outlive the host's signal frame";
    case Op::loope:
    case Op::loopne:
      if (i.repeat != 0) return "AMD takes a repeat prefix for the condition";
      break;
    case Op::monitor:
    case Op::mwait:
      return "the host's hypervisor decides";
    default:
      break;
  }
  bool nearBranch = i.info->cls == OpClass::branch && i.codeSize == CodeSize::bits64;
  if (nearBranch && i.operandSizePrefix) return "AMD takes a 16-bit target, Intel ignores the prefix (as Lodge does)";
  if (i.map == 1 && i.opcode == 0x0d && i.mod == 3) return "#UD on AMD, a NOP on Intel (and here)";
  if (i.segmentOverride == fs && !hostHasFsgsbase()) return "FS is the oracle's own thread pointer";
  return "";
}

std::uint64_t Generator::random() {
  // splitmix64 (Steele, Lea, Flood 2014).
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::uint64_t Generator::value() {
  if (mmio_ && chance(12)) return kMmioBase + (chance(50) ? 8 * below(512) : 4096 * below(2) + below(32) - 16);
  if (chance(narrow() ? 3 : 1)) return selector();
  switch (below(8)) {
    case 0:
    case 1:
    case 2:
      return kDataBase + 64 * below(kDataBytes / 64);
    case 3:
      return kDataBase + below(kDataBytes);
    case 4:
      return kDataBase + 4096 * (1 + below(2)) - below(24);
    case 5:
      return below(2) != 0 ? below(64) : ~below(64);
    case 6:
      return chance(50) ? kReadOnlyBase + below(kReadOnlyBytes) : 1ull << below(64);
    default:
      return random();
  }
}

/// Null ones, those of the GDT, and those of the LDT that 16-bit code has.
std::uint16_t Generator::selector() {
  constexpr std::uint16_t kSelectors[] = {0,       0,       kUserCs32, kUserSs, kUserSs & ~3, kUserCs, kUserSs,
                                          kUserSs, kData16, kData16,   kData16, kPatch16,     kTr,     kCpuNumber};
  switch (below(8)) {
    case 0:
      return static_cast<std::uint16_t>(below(2) != 0 ? below(0x100) : random());
    case 1:
      return code16Selector(static_cast<unsigned>(below(kBatch)));
    default:
      return kSelectors[below(std::size(kSelectors))];
  }
}

std::uint64_t Generator::segmentBase() {
  if (!hostHasFsgsbase() || chance(40)) return 0;
  if (chance(85)) return below(2) != 0 ? below(64) : ~below(64);
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value() << 16) >> 16);
}

void Generator::registers(Registers& r) {
  for (auto& g : r.gpr) g = value();
  if (chance(90)) r.gpr[rsp] = kDataBase + 1024 + 8 * below(700);
  if (chance(40)) r.gpr[rcx] = below(20);
  constexpr std::uint64_t kArithmetic = flag::arithmetic;
  r.rflags = (random() & kArithmetic) | flag::reserved1 | flag::if_;
  if (chance(10)) r.rflags |= flag::df;
  if (chance(2)) r.rflags |= flag::ac;
  r.fsBase = segmentBase();
  r.gsBase = segmentBase();
  vectorState(r);
}

void Generator::vectorState(Registers& r) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(r.vector.data());
  std::memset(bytes, 0, kVectorBytes);
  auto put16 = [&](std::size_t at, std::uint16_t v) { std::memcpy(bytes + at, &v, 2); };
  // FXSAVE layout (SDM vol. 1, table 10-2).
  put16(0, static_cast<std::uint16_t>(chance(95) ? 0x037f : 0x0340 | below(64) | below(4) << 8 | below(4) << 10));
  put16(2, static_cast<std::uint16_t>(below(8) << 11 | (chance(50) ? below(16) << 8 : 0)));
  bytes[4] = static_cast<std::uint8_t>(chance(50) ? 0xff : chance(50) ? 0 : random());
  std::uint32_t mxcsr = chance(90) ? 0x1f80 : 0x1f80u & ~(1u << (7 + below(6)));
  mxcsr |= static_cast<std::uint32_t>(below(4) << 13);
  std::memcpy(bytes + 24, &mxcsr, 4);
  for (unsigned i = 0; i < 8; ++i) {
    std::uint64_t mantissa = random() | 1ull << 63;
    std::uint16_t exponent = static_cast<std::uint16_t>(chance(80) ? 0x3fff + below(64) - 32 : random());
    std::memcpy(bytes + 32 + 16 * i, &mantissa, 8);
    put16(40 + 16 * i, exponent);
  }
  const Avx512Layout& wide = avx512Layout();
  struct Range {
    std::size_t base, bytes;
  };
  for (Range range :
       {Range{160, 256}, Range{576, 256}, Range{wide.upperHalves, 512}, Range{wide.upperRegisters, 1024}}) {
    std::size_t base = range.base;
    for (std::size_t i = 0; i < range.bytes && base != 0; i += 8) {
      std::uint64_t word = random(), small = word >> 24 & 0xffff'ffff;
      double number = static_cast<double>(static_cast<std::int32_t>(small)) / 1024.0 / 512.0;
      float pair[2] = {static_cast<float>(number), static_cast<float>(word % 1000) - 500.0f};
      unsigned kind = word & 15;
      if (kind < 5)
        std::memcpy(&word, &number, 8);
      else if (kind < 10)
        std::memcpy(&word, pair, 8);
      std::memcpy(bytes + base + i, &word, 8);
    }
  }
  for (unsigned i = 0; i < 8 && wide.masks != 0; ++i) {
    std::uint64_t mask = chance(30)   ? random()
                         : chance(30) ? random() & random()
                         : chance(50) ? below(65536)
                                      : below(3) - 1;
    std::memcpy(bytes + wide.masks + 8 * i, &mask, 8);
  }
  std::memcpy(bytes + 512, &kVectorComponents, 8);
}

unsigned Generator::operandBytes(std::uint8_t* p) {
  unsigned n = 0;
  std::uint8_t modrm = static_cast<std::uint8_t>(random());
  if (chance(45)) modrm |= 0xc0;
  p[n++] = modrm;
  unsigned mod = modrm >> 6, rm = modrm & 7;
  if (mod != 3 && rm == 4) {
    std::uint8_t sib = static_cast<std::uint8_t>(random());
    if (chance(60)) sib = static_cast<std::uint8_t>((sib & 7) | 0x20);  // no index
    p[n++] = sib;
  }
  // Displacements: mostly near, so that base + displacement stays in the data.
  for (unsigned i = 0; i < 8; ++i) p[n + i] = static_cast<std::uint8_t>(random());
  if (mod == 2 || (mod == 0 && (rm == 5 || rm == 4))) {
    std::uint32_t near =
        chance(90) ? static_cast<std::uint32_t>(below(512)) - 256 : static_cast<std::uint32_t>(random());
    std::memcpy(p + n, &near, 4);
  }
  return n + 8;
}

/// ModRM for 16-bit addresses, most of them in the data.
unsigned Generator::operandBytes16(std::uint8_t* p) {
  unsigned n = 0;
  auto modrm = static_cast<std::uint8_t>(random());
  if (chance(40)) modrm |= 0xc0;
  p[n++] = modrm;
  for (unsigned i = 0; i < 8; ++i) p[n + i] = static_cast<std::uint8_t>(random());
  unsigned mod = modrm >> 6;
  bool direct = mod == 0 && (modrm & 7) == 6;
  if (mod == 2 || direct) {
    auto displacement = static_cast<std::uint16_t>(direct ? below(kDataBytes) : below(512) - 256);
    if (chance(10)) displacement = static_cast<std::uint16_t>(random());
    std::memcpy(p + n, &displacement, 2);
  }
  return n + 8;
}

/// Perhaps a segment override prefix. Those of ES, CS, SS and DS say nothing in 64-bit code.
unsigned Generator::segmentPrefix(std::uint8_t* p) {
  if (chance(narrow() ? 6 : 3)) {
    bool mayBeFs = narrow() || hostHasFsgsbase();  // or it is the oracle's own thread pointer
    p[0] = static_cast<std::uint8_t>(mayBeFs ? 0x64 | below(2) : 0x65);
  } else if (chance(narrow() ? 6 : 1)) {
    p[0] = static_cast<std::uint8_t>(0x26 | below(4) << 3);
  } else {
    return 0;
  }
  return 1;
}

unsigned Generator::legacyBytes(std::uint8_t* p) {
  unsigned n = 0;
  if (chance(code16_ ? 30 : 15)) p[n++] = 0x66;
  if (chance(15)) p[n++] = chance(50) ? 0xf2 : 0xf3;
  if (chance(5)) p[n++] = 0xf0;
  bool otherAddress = chance(code16_ ? 15 : 3);
  if (otherAddress) p[n++] = 0x67;
  n += segmentPrefix(p + n);
  if (!narrow() && chance(55)) p[n++] = static_cast<std::uint8_t>(0x40 + below(16));
  unsigned map = static_cast<unsigned>(below(10));
  if (map >= 4) p[n++] = 0x0f;
  if (map == 8) p[n++] = 0x38;
  if (map == 9) p[n++] = 0x3a;
  p[n++] = static_cast<std::uint8_t>(random());
  return n + (code16_ && !otherAddress ? operandBytes16(p + n) : operandBytes(p + n));
}

unsigned Generator::vexBytes(std::uint8_t* p) {
  unsigned n = segmentPrefix(p);
  std::uint8_t low = static_cast<std::uint8_t>(random());
  if (chance(60)) low &= 0x7f;  // W = 0
  if (chance(20)) {
    p[n++] = 0xc5;
    p[n++] = low;
  } else {
    p[n++] = 0xc4;
    p[n++] = static_cast<std::uint8_t>((random() & 0xe0) | (1 + below(3)));
    p[n++] = chance(30) ? static_cast<std::uint8_t>(low | 0x78) : low;  // vvvv = 1111 where it must be
  }
  p[n++] = static_cast<std::uint8_t>(random());
  return n + (code16_ ? operandBytes16(p + n) : operandBytes(p + n));
}

unsigned Generator::evexBytes(std::uint8_t* p) {
  unsigned prefix = segmentPrefix(p);
  p += prefix;
  p[0] = 0x62;
  p[1] = static_cast<std::uint8_t>((random() & 0xf0) | (1 + below(3)));
  if (chance(60)) p[1] |= 0xf0;
  if (narrow()) p[1] |= 0xc0;
  p[2] = static_cast<std::uint8_t>(random() | 4);
  if (chance(30)) p[2] |= 0x78;  // vvvv = 1111 where it must be
  if (chance(40)) p[2] = static_cast<std::uint8_t>((p[2] & ~3) | 1);
  p[3] = static_cast<std::uint8_t>(random());
  if (chance(60)) p[3] |= 8;
  if (chance(60)) p[3] &= 0xef;
  if (chance(60)) p[3] &= 0x7f;
  p[4] = static_cast<std::uint8_t>(random());
  return prefix + 5 + (code16_ ? operandBytes16(p + 5) : operandBytes(p + 5));
}

bool Generator::isWanted(const Instruction& i) const {
  return !definedFlags_ || (flagEffects(i).undefined & ~flag::af) == 0;
}

unsigned Generator::instruction(std::uint8_t (&bytes)[kMaxInstructionLength]) {
  for (;;) {
    std::uint8_t raw[64];
    bool wide = avx512Layout().masks != 0 && chance(30);
    unsigned available = wide ? evexBytes(raw) : chance(35) ? vexBytes(raw) : legacyBytes(raw);
    Instruction decoded{};
    DecodeStatus status = decode(raw, available < 15 ? available : 15, codeSize(), decoded);
    if (status == DecodeStatus::invalid) {
      // A few invalid ones are kept: the host must find them invalid, too. Not what the host may know and no model
      // offers: EVEX, VEX (mask registers), SSE4A, SVM, MOVDIRI, LOCK MOV CR0 (CR8 on AMD).
      if (!chance(1)) continue;
      bool offered = true;
      for (unsigned k = 0; k < 8; ++k) {
        for (std::uint8_t other : {0x62, 0xc4, 0xc5, 0x20, 0x22, 0x78, 0x79, 0x2b, 0x01, 0xf8, 0xf9})
          offered = offered && raw[k] != other;
      }
      if (!offered) continue;
      std::memcpy(bytes, raw, kMaxInstructionLength);
      ++generated_["(invalid)"];
      return 8;
    }
    if (status != DecodeStatus::ok || !isWanted(decoded)) continue;
    if (auto reason = reasonToLeaveOut(decoded); !reason.empty()) {
      ++leftOut_[std::string(decoded.info->mnemonic) + ": " + std::string(reason)];
      continue;
    }
    ++generated_[decoded.info->mnemonic];
    std::memcpy(bytes, raw, kMaxInstructionLength);
    return decoded.length;
  }
}

namespace {

/// Whether a branch of the snippet leads into the middle of an instruction, or into another snippet: what is executed
/// there was not chosen.
bool jumpsAstray(const Snippet& s) {
  bool boundary[kSlotBytes + 1] = {};
  std::int64_t targets[64];
  unsigned count = 0;
  for (unsigned at = 0; at < s.length;) {
    boundary[at] = true;
    Instruction i{};
    if (decode(s.code + at, 15, differential::codeSize(s), i) != DecodeStatus::ok) break;
    at += i.length;
    if (i.info->form == Form::j && count < 64) targets[count++] = static_cast<std::int64_t>(at + i.immediate);
  }
  for (unsigned t = 0; t < count; ++t) {
    bool own = targets[t] >= 0 && targets[t] < static_cast<std::int64_t>(kSlotBytes);
    bool near =
        targets[t] > -static_cast<std::int64_t>(kCodeBytes) && targets[t] < static_cast<std::int64_t>(kCodeBytes);
    if (own ? targets[t] < s.length && !boundary[targets[t]] : near) return true;
  }
  return false;
}

}  // namespace

Snippet Generator::next(unsigned slot) {
  constexpr unsigned kStates = 4;
  if (statesToCome_ != 0 && slot != 0) {
    --statesToCome_;
    restate(drafted_);
  } else {
    statesToCome_ = kStates - 1;
    do {
      drafted_ = draft(slot);
    } while (drafted_.length > kSlotBytes || jumpsAstray(drafted_));
  }
  Snippet s = drafted_;
  moveToMode(s);
  return s;
}

/// Another state for the same code. What its pointers point to moves a little.
void Generator::restate(Snippet& s) {
  const Registers old = s.before;
  registers(s.before);
  s.before.rip = old.rip;
  for (unsigned r = 0; r < 16; ++r) {
    if ((s.pointers >> r & 1) == 0) continue;
    s.before.gpr[r] = old.gpr[r];
    if (chance(50)) s.before.gpr[r] += chance(80) ? 8 * below(16) - 64 : below(32) - 16;
  }
  s.dataSeed = random();
  s.restated = true;
}

void Generator::moveToMode(Snippet& s) {
  if (code32_) moveToLow4G(s);
  if (code16_) moveToSegments(s);
  if (kernel_ && !narrow()) moveToUpperHalf(s);
  if (narrow()) chooseSegments(s);
}

/// FS and GS of 32- and 16-bit code: null, flat, or the 16-bit data's, with bases like those of 64-bit code.
void Generator::chooseSegments(Snippet& s) {
  auto choose = [&](std::uint16_t& selector, std::uint64_t& base) {
    bool null = !hostHasFsgsbase() || chance(15);
    selector = null ? std::uint16_t{0} : code16_ && chance(70) ? kData16 : kUserSs;
    if (code16_ && hostHasFsgsbase()) base += kDataAlias;
    base &= 0xffff'ffff;
  };
  choose(s.fsSelector, s.before.fsBase);
  choose(s.gsSelector, s.before.gsBase);
}

/// The data are there, too.
void Generator::moveToLow4G(Snippet& s) {
  s.before.rip = s.inPatchArea ? s.before.rip - kPatchBase + kPatchAlias : kCode32Base + s.slot * kSlotBytes;
  for (auto& g : s.before.gpr) g &= 0xffff'ffff;
}

/// Offsets instead of pointers; some at the ends of the segment and of 64 KiB.
void Generator::moveToSegments(Snippet& s) {
  s.before.rip = s.inPatchArea ? s.before.rip - kPatchBase : 0;
  for (auto& g : s.before.gpr) {
    if (chance(4)) g = kData16Limit + 8 - below(16);
    if (chance(4)) g = 0xffff - below(16);
    g &= 0xffff;
    if (chance(30)) g |= random() << 16 & 0xffff'0000;
  }
}

/// Code, and most pointers.
void Generator::moveToUpperHalf(Snippet& s) {
  s.before.rip += kUpperHalf;
  for (unsigned r = 0; r < 16; ++r) {
    bool isPointer = s.before.gpr[r] - (kDataBase - 4096) < kReadOnlyBase + kReadOnlyBytes - (kDataBase - 4096);
    if (isPointer && chance(r == rsp ? 98 : 85)) s.before.gpr[r] += kUpperHalf;
  }
  if (!chance(5)) s.before.rflags &= ~flag::ac;
}

/// Two guests need not agree on what the clock says, and little else.
std::string_view Generator::reasonToLeaveOut(const Instruction& i) const {
  if (!kernel_) return differential::reasonToLeaveOut(i);
  switch (i.info->op) {
    case Op::rdtsc:
    case Op::rdtscp:
    case Op::rdpmc:
    case Op::rdrand:
    case Op::rdseed:
      return "random, or the clock's";
    case Op::monitor:
    case Op::mwait:
      return "waits";
    case Op::wrmsr:
    case Op::rdmsr:
      return "with chosen registers only (the clock's MSRs)";
    default:
      return "";
  }
}

/// DAA, DAS, AAA and AAS leave flags undefined, and nothing that comes after them may show these.
bool Generator::leavesFlagsUndefined(std::uint8_t opcode) const {
  return narrow() && (opcode == 0x27 || opcode == 0x2f || opcode == 0x37 || opcode == 0x3f);
}

Snippet Generator::draft(unsigned slot) {
  Snippet s{};
  std::memset(s.code, 0xcc, sizeof s.code);
  s.dataSeed = random();
  s.code32 = code32_;
  s.code16 = code16_;
  s.slot = slot;
  if (chance(50)) {
    Program(*this, s, slot).write();
    return s;
  }
  unsigned count = chance(50) ? 1 : 1 + static_cast<unsigned>(below(5));
  for (unsigned i = 0; i < count; ++i) {
    std::uint8_t bytes[kMaxInstructionLength];
    unsigned length = instruction(bytes);
    if (s.length + length > kSlotBytes) break;
    std::memcpy(s.code + s.length, bytes, length);
    s.length += length;
    if (leavesFlagsUndefined(bytes[length - 1])) break;
  }
  registers(s.before);
  s.before.rip = kCodeBase + slot * kSlotBytes;
  return s;
}

}  // namespace lodge::differential
