// SPDX-License-Identifier: Apache-2.0
// The decoder against Zydis: validity, length, mnemonic, memory operand and flags, over random bytes and over libc's
// code. Every kind of difference that is right is listed here with its reason; any other fails the test.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <string_view>

#include "x86/instruction.h"

namespace lodge::x86 {
namespace {

struct Oracle {
  explicit Oracle(CodeSize codeSize) : size(codeSize) {
    bool is64 = size == CodeSize::bits64, is32 = size == CodeSize::bits32;
    ZydisMachineMode mode = is64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : is32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
                                   : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
    ZydisDecoderInit(&decoder, mode, is64 ? ZYDIS_STACK_WIDTH_64 : is32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16);
    for (ZydisDecoderMode off : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE}) {
      ZydisDecoderEnableMode(&decoder, off, ZYAN_FALSE);
    }
  }
  bool decode(const std::uint8_t* bytes) {
    ZydisDecoderContext context;
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, bytes, 15, &out)) &&
           ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &out, operands, out.operand_count));
  }
  std::string name() const { return ZydisMnemonicGetString(out.mnemonic); }

  CodeSize size;
  ZydisDecoder decoder;
  ZydisDecodedInstruction out;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/// What Zydis knows and no CPU model here offers: these encodings are #UD (SVM: EFER.SVME is 0; VMX: CR4.VMXE is 0).
bool notOffered(std::string_view isaSet) {
  static constexpr std::string_view kSets[] = {
      "AMD3DNOW", "AMD_INVLPGB", "AMX_",    "AVX512ER", "AVX512PF",  "AVX512_4", "AVX512_FP16", "CET",
      "CLZERO",   "ENQCMD",      "FMA4",    "HRESET",   "KEYLOCKER", "KNC",      "LWP",         "MCOMMIT",
      "MONITORX", "MOVDIR",      "PADLOCK", "PCONFIG",  "PT",        "RDPRU",    "RTM",         "SERIALIZE",
      "SGX",      "SMX",         "SNP",     "SSE4A",    "SVM",       "TBM",      "TDX",         "TSX_LDTRK",
      "UINTR",    "VMFUNC",      "VTX",     "WAITPKG",  "XOP"};
  return std::any_of(std::begin(kSets), std::end(kSets), [&](std::string_view s) { return isaSet.starts_with(s); });
}

/// Opcodes that have one name here and one for each size, or alias, there.
std::string expectedName(const Instruction& i) {
  static const std::map<Op, std::array<const char*, 4>> kSized = {
      // by operand size 1, 2, 4, 8
      {Op::cbw, {"", "cbw", "cwde", "cdqe"}},           {Op::cwd, {"", "cwd", "cdq", "cqo"}},
      {Op::cmps, {"cmpsb", "cmpsw", "cmpsd", "cmpsq"}}, {Op::movs, {"movsb", "movsw", "movsd", "movsq"}},
      {Op::scas, {"scasb", "scasw", "scasd", "scasq"}}, {Op::lods, {"lodsb", "lodsw", "lodsd", "lodsq"}},
      {Op::stos, {"stosb", "stosw", "stosd", "stosq"}}, {Op::ins, {"insb", "insw", "insd", "insd"}},
      {Op::outs, {"outsb", "outsw", "outsd", "outsd"}}, {Op::iret, {"", "iret", "iretd", "iretq"}},
      {Op::pushf, {"", "pushf", "pushfd", "pushfq"}},   {Op::popf, {"", "popf", "popfd", "popfq"}},
      {Op::pusha, {"", "pusha", "pushad", ""}},         {Op::popa, {"", "popa", "popad", ""}}};
  unsigned log = i.operandSize == 8 ? 3 : i.operandSize == 4 ? 2 : i.operandSize == 2 ? 1 : 0;
  if (auto entry = kSized.find(i.info->op); entry != kSized.end()) return entry->second[log];
  if (i.info->op == Op::jcxz) return i.addressSize == 8 ? "jrcxz" : i.addressSize == 4 ? "jecxz" : "jcxz";
  std::string name = i.info->mnemonic;
  bool w = i.codeSize == CodeSize::bits64 && (i.encoding != Encoding::legacy ? i.vexW : (i.rex & 8) != 0);
  if (w && name == "vpbroadcastd" && (i.info->attributes & attribute::rmIsGpr) != 0) name.back() = 'q';
  if (w && name[0] != 'k' && (name.ends_with("movd") || name.ends_with("pextrd") || name.ends_with("pinsrd")))
    name.back() = 'q';
  if (w && (name.starts_with("fxsave") || name.starts_with("fxrstor") || name.starts_with("xsave") ||
            name.starts_with("xrstor"))) {
    name += "64";
  }
  if (name == "fneni") return "feni8087_nop";
  if (name == "fndisi") return "fdisi8087_nop";
  if (name == "fnsetpm") return "fsetpm287_nop";
  if (name == "fstp" && i.opcode == 0xd9 && i.mod == 3) return "fstpnce";
  if (name == "prefetchw" && i.reg % 8 == 2) return "prefetchwt1";
  if (name == "prefetchw" && i.reg % 8 != 1) return "prefetch";
  return name;
}

unsigned gprNumber(ZydisRegister r) {
  if (r == ZYDIS_REGISTER_NONE || r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP) return kNoRegister;
  return static_cast<unsigned>(ZydisRegisterGetId(r));
}

std::string compareAddress(const Instruction& ours, const Oracle& oracle, const ZydisDecodedOperandMem& theirs) {
  std::uint64_t mask = ours.addressSize == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * ours.addressSize)) - 1;
  if (theirs.segment && ours.info->op != Op::lea &&
      ours.segment != static_cast<unsigned>(ZydisRegisterGetId(theirs.segment)))
    return "segment";
  // Zydis 4.0 takes R13D for the missing base of mod 0, SIB base 5 with REX.B and 67 (SDM vol. 2, table 2-5: there is
  // none).
  bool noBase =
      ours.mod == 0 && (ours.modrm & 7) == 4 && ours.base == kNoRegister && theirs.base == ZYDIS_REGISTER_R13D;
  if (noBase) return {};  // and an 8-bit displacement with it
  if (ours.base != gprNumber(theirs.base)) return "base";
  if (ours.index != gprNumber(theirs.index)) return "index";
  if (ours.index != kNoRegister && ours.scale != theirs.scale) return "scale";
  if ((static_cast<std::uint64_t>(ours.displacement ^ theirs.disp.value) & mask) != 0) return "displacement";
  return ours.addressSize * 8 != oracle.out.address_width ? "address size" : "";
}

std::string compareMemory(const Instruction& ours, const Oracle& oracle) {
  const ZydisDecodedOperand* memory = nullptr;
  bool implied = ours.info->cls == OpClass::string || ours.info->op == Op::ins || ours.info->op == Op::outs;
  for (unsigned i = 0; i < oracle.out.operand_count && !implied; ++i) {
    const ZydisDecodedOperand& o = oracle.operands[i];
    if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) memory = &o;
  }
  if ((memory != nullptr) != ours.memory) return "presence of a memory operand";
  if (!memory) return {};
  MemoryOperand m = memoryOperand(ours);
  // Hints: nothing is accessed. CLFLUSH and its kin: the byte that they look at. XSAVE: the size depends on EDX:EAX.
  // UD0, UD1: never executed.
  bool sizeless = m.bytes == 0 || ours.info->op == Op::ud || ours.info->op == Op::clflush;
  if (!sizeless) {
    if (m.bytes * 8 != memory->size) return "memory size";
    if (m.read != ((memory->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0)) return "memory read";
    if (m.write != ((memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0)) return "memory write";
  }
  return compareAddress(ours, oracle, memory->mem);
}

/// EVEX has the most bits that make up register numbers.
std::string compareRegisters(const Instruction& ours, const Oracle& oracle) {
  if (ours.encoding != Encoding::evex) return {};
  for (unsigned i = 0; i < oracle.out.operand_count; ++i) {
    const ZydisDecodedOperand& o = oracle.operands[i];
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    auto number = static_cast<unsigned>(ZydisRegisterGetId(o.reg.value));
    if (o.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG && number != ours.reg) return "reg";
    if (o.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && number != ours.rm) return "rm";
    if (o.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD && number != ours.vexV) return "vvvv";
    if (o.encoding == ZYDIS_OPERAND_ENCODING_MASK && number != ours.opmask) return "opmask";
  }
  return ours.memory && oracle.out.avx.vector_length != 0 && ours.info->memoryBytes == memory_size::vector &&
                 oracle.out.avx.vector_length != 128u << ours.vexL
             ? "vector length"
             : "";
}

/// Flags: ours must be Zydis's, but where the manuals or the meaning of FlagEffects differ.
std::string compareFlags(const Instruction& ours, const Oracle& oracle) {
  constexpr std::uint32_t kMask = flag::arithmetic | flag::df;
  FlagEffects e = flagEffects(ours);
  std::uint32_t tested = 0, written = 0, undefined = 0;
  if (const ZydisAccessedFlags* f = oracle.out.cpu_flags) {
    tested = f->tested & kMask;
    written = (f->modified | f->set_0 | f->set_1) & kMask;
    undefined = f->undefined & kMask;
  }
  switch (ours.info->op) {
    // Zydis does not say which shifts leave the flags, nor that OF is defined for a count of 1.
    case Op::rol:
    case Op::ror:
    case Op::rcl:
    case Op::rcr:
    case Op::shl:
    case Op::shr:
    case Op::sar:
    case Op::shld:
    case Op::shrd:
      if (e.written == 0) return {};
      return (e.written | e.undefined) == (written | undefined) && (e.read & tested) == tested ? "" : "shift flags";
    // With REP and rCX 0 the flags stay.
    case Op::cmps:
    case Op::scas:
      return e.written == written && (e.read & flag::df) ? "" : "string flags";
    // They push or copy the flags.
    case Op::int_:
    case Op::int1:
    case Op::int3:
    case Op::into:
    case Op::syscall:
      return e.written == written ? "" : "flags written";
    case Op::vmcall:
    case Op::rsm:
      return {};  // KVM's convention; #UD here
    case Op::sbb:
      undefined &= ~std::uint32_t{flag::af};
      written |= flag::af;
      break;  // Zydis: AF undefined; SDM: set
    case Op::bextr:
      return e.written == (flag::zf | flag::cf | flag::of) ? "" : "bextr flags";  // SDM: CF and OF cleared
    default:
      break;
  }
  std::string_view name = ours.info->mnemonic;
  if (name == "vptest" || name.starts_with("vtestp"))
    return e.written == flag::arithmetic ? "" : "test flags";  // SDM: cleared
  // FCOMI: OF, SF, AF are cleared by Intel's and newer AMD processors, kept by older ones; treated as kept.
  if (name.starts_with("fcomi") || name.starts_with("fucomi"))
    return (e.read | e.written) == written ? "" : "fcomi flags";
  if (e.read != tested) return "flags read";
  if (e.written != written) return "flags written";
  return e.undefined != undefined ? "flags undefined" : "";
}

/// EVEX.W outside 64-bit mode where it would widen a general register: ignored (SDM vol. 2, MOVD/MOVQ, PEXTRD/PEXTRQ,
/// PINSRD/PINSRQ, CVTSI2SD). Zydis 4.0 goes by it.
bool ignoresW(const Instruction& i) {
  return i.codeSize != CodeSize::bits64 && i.encoding == Encoding::evex && i.vexW &&
         i.info->memoryBytes == memory_size::dwordOrQword;
}

class Comparison {
 public:
  void compare(Oracle& oracle, const std::uint8_t* bytes) {
    ++count_;
    Instruction ours;
    bool valid = decode(bytes, 15, oracle.size, ours) == DecodeStatus::ok;
    if (valid && ignoresW(ours)) return;
    if (!oracle.decode(bytes)) {
      if (valid) note("only ours: ", ours.info->mnemonic, bytes, oracle);
      return;
    }
    if (!valid) {
      std::string isaSet = ZydisISASetGetString(oracle.out.meta.isa_set);
      if (notOffered(isaSet))
        ++skipped_[isaSet];
      else
        note("only theirs: ", oracle.name() + " " + isaSet, bytes, oracle);
      return;
    }
    std::string difference;
    // F3 90 with REX.B: XCHG on every processor tried, PAUSE to Zydis.
    bool exchange = ours.info->op == Op::xchg && oracle.name() == "pause";
    if (oracle.out.length != ours.length)
      difference = "length";
    else if (oracle.name() != expectedName(ours) && !exchange)
      difference = "name " + oracle.name();
    else
      difference = compareMemory(ours, oracle);
    if (difference.empty()) difference = compareRegisters(ours, oracle);
    if (difference.empty() && !exchange) difference = compareFlags(ours, oracle);
    if (!difference.empty()) note(std::string(ours.info->mnemonic) + ": ", difference, bytes, oracle);
  }

  void report() const {
    for (const auto& [kind, entry] : differences_)
      ADD_FAILURE() << entry.first << " times " << kind << ", first at " << entry.second;
    std::uint64_t skipped = 0;
    for (const auto& [set, n] : skipped_) skipped += n;
    std::printf("%llu compared, %llu of instruction sets that are not offered\n",
                static_cast<unsigned long long>(count_), static_cast<unsigned long long>(skipped));
  }

 private:
  void note(const std::string& what, const std::string& detail, const std::uint8_t* bytes, const Oracle& oracle) {
    auto& entry = differences_[what + detail];
    if (entry.first++ != 0) return;
    char part[4];
    for (unsigned i = 0; i < 15; ++i) {
      std::snprintf(part, sizeof part, "%02x ", bytes[i]);
      entry.second += part;
    }
    entry.second += "in " + std::to_string(8 * static_cast<int>(oracle.size)) + "-bit mode";
  }

  std::uint64_t count_ = 0;
  std::map<std::string, std::pair<unsigned, std::string>> differences_;
  std::map<std::string, std::uint64_t> skipped_;
};

/// Random bytes, with prefixes, escapes and VEX more often than chance has them.
void randomInstruction(std::mt19937_64& random, std::uint8_t (&bytes)[16]) {
  static constexpr std::uint8_t kPrefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e,
                                               0x26, 0x64, 0x65, 0x48, 0x41, 0x44, 0x42, 0x4f};
  std::uint64_t halves[2] = {random(), random()};
  std::memcpy(bytes, halves, 16);
  std::uint64_t choice = random();
  unsigned n = 0;
  for (unsigned prefixes = choice % 4 % 3; prefixes > 0; --prefixes)
    bytes[n++] = kPrefixes[(choice >> (8 * prefixes)) & 15];
  switch ((choice >> 32) & 7) {
    case 1:
    case 2:
      bytes[n] = 0x0f;
      break;
    case 3:
      bytes[n++] = 0x0f;
      bytes[n] = (choice >> 40) & 1 ? 0x38 : 0x3a;
      break;
    case 4:
      bytes[n] = 0xc5;
      break;
    case 5:
    case 6:
      bytes[n] = 0xc4;
      bytes[n + 1] = static_cast<std::uint8_t>((bytes[n + 1] & 0xe0) | (1 + (bytes[n + 1] & 0x1f) % 3));
      break;
    case 7:
      bytes[n] = 0x62;
      bytes[n + 1] = static_cast<std::uint8_t>((bytes[n + 1] & 0xf0) | (1 + (bytes[n + 1] & 3) % 3));
      bytes[n + 2] |= (choice >> 40) & 7 ? 4 : 0;
      if ((choice >> 48) & 1) bytes[n + 2] |= 0x78;
      if ((choice >> 49) & 1) bytes[n + 3] = static_cast<std::uint8_t>((bytes[n + 3] & 0x67) | 8);
      break;
    default:
      break;
  }
}

/// LODGE_DECODE_COUNT: how many random strings a mode.
TEST(DecodeZydis, randomBytes) {
  const char* asked = std::getenv("LODGE_DECODE_COUNT");
  unsigned long count = asked ? std::strtoul(asked, nullptr, 10) : 2000000;
  Comparison comparison;
  std::mt19937_64 random(20240501);
  for (CodeSize size : {CodeSize::bits64, CodeSize::bits32, CodeSize::bits16}) {
    Oracle oracle(size);
    for (unsigned long i = 0; i < count; ++i) {
      std::uint8_t bytes[16];
      randomInstruction(random, bytes);
      comparison.compare(oracle, bytes);
    }
  }
  comparison.report();
}

/// Every opcode of every map with every prefix and ModRM byte, so that no row depends on luck.
TEST(DecodeZydis, everyOpcode) {
  Comparison comparison;
  for (CodeSize size : {CodeSize::bits64, CodeSize::bits32, CodeSize::bits16}) {
    Oracle oracle(size);
    for (unsigned prefix : {0x00, 0x66, 0xf3, 0xf2, 0x48, 0xf0}) {
      if (prefix == 0x48 && size != CodeSize::bits64) continue;
      for (unsigned map = 0; map < 4; ++map) {
        for (unsigned rest = 0; rest < 65536; ++rest) {
          std::uint8_t bytes[24] = {};
          unsigned n = 0;
          if (prefix) bytes[n++] = static_cast<std::uint8_t>(prefix);
          if (map) bytes[n++] = 0x0f;
          if (map > 1) bytes[n++] = map == 2 ? 0x38 : 0x3a;
          bytes[n++] = static_cast<std::uint8_t>(rest);
          bytes[n++] = static_cast<std::uint8_t>(rest >> 8);
          for (unsigned i = n; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(0x11 * i);
          comparison.compare(oracle, bytes);
        }
      }
    }
    for (unsigned vex = 0; vex < 3 * 16; ++vex) {  // map; W, L, pp
      for (unsigned rest = 0; rest < 65536; ++rest) {
        std::uint8_t payload = static_cast<std::uint8_t>((vex & 7) | (vex & 8) << 4 | (rest & 1 ? 0x78 : 0x50));
        std::uint8_t bytes[16] = {0xc4,
                                  static_cast<std::uint8_t>(0xe1 + vex / 16),
                                  payload,
                                  static_cast<std::uint8_t>(rest),
                                  static_cast<std::uint8_t>(rest >> 8),
                                  0x25,
                                  0x43,
                                  0x32,
                                  0x21,
                                  0x12};
        comparison.compare(oracle, bytes);
        bytes[2] ^= 0x28;  // the other vvvv
        comparison.compare(oracle, bytes);
      }
    }
  }
  comparison.report();
}

/// Every EVEX opcode with every prefix, W, length, broadcast bit, kind of mask and ModRM.reg.
TEST(DecodeZydis, everyEvexOpcode) {
  Comparison comparison;
  for (CodeSize size : {CodeSize::bits64, CodeSize::bits32}) {
    Oracle oracle(size);
    for (unsigned n = 0; n < 3u << 18; ++n) {
      // Opcode, then pp, W, L'L, b, z and map; register or memory in turn.
      auto p1 = static_cast<std::uint8_t>(((n >> 8) & 3) | ((n >> 10) & 1) << 7 | 4);
      auto p2 = static_cast<std::uint8_t>(((n >> 11) & 3) << 5 | ((n >> 13) & 1) << 4 | ((n >> 14) & 1) << 7);
      auto mod = (n >> 15) & 3;
      std::uint8_t bytes[16] = {0x62, static_cast<std::uint8_t>(0xf1 + (n >> 18)), p1, p2,
                                static_cast<std::uint8_t>(n)};
      for (unsigned k = 0; k < 16; ++k) {
        bytes[2] = static_cast<std::uint8_t>(p1 | (k & 1 ? 0x78 : 0x50));
        bytes[3] = static_cast<std::uint8_t>(p2 | (k & 2 ? 8 : 0) | (k & 4 ? 3 : 0));
        bytes[5] = static_cast<std::uint8_t>(mod << 6 | ((n * 7 + k) & 7) << 3 | (k & 8 ? 4 : 1));
        for (unsigned i = 6; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(0x11 * i + n);
        comparison.compare(oracle, bytes);
      }
    }
  }
  comparison.report();
}

/// Linear sweep over libc's executable segment as it is mapped here.
TEST(DecodeZydis, libc) {
  Comparison comparison;
  auto sweep = [](dl_phdr_info* info, std::size_t, void* data) {
    if (std::string_view(info->dlpi_name).find("libc.so") == std::string_view::npos) return 0;
    Oracle oracle(CodeSize::bits64);
    for (unsigned i = 0; i < info->dlpi_phnum; ++i) {
      const auto& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
      auto* at = reinterpret_cast<const std::uint8_t*>(info->dlpi_addr + segment.p_vaddr);
      const std::uint8_t* end = at + segment.p_filesz - 16;
      while (at < end) {
        static_cast<Comparison*>(data)->compare(oracle, at);
        at += oracle.decode(at) ? oracle.out.length : 1;
      }
    }
    return 1;
  };
  ASSERT_EQ(dl_iterate_phdr(sweep, &comparison), 1) << "no libc.so mapped";
  comparison.report();
}

}  // namespace
}  // namespace lodge::x86
