// SPDX-License-Identifier: Apache-2.0
// The instruction decoder (SDM vol. 2, chapter 2 and appendix A): prefixes, opcode, ModRM, then operands by the
// opcode's row.
#include "base/bytes.h"
#include "x86/instruction.h"
#include "x86/opcode_table.h"

namespace lodge::x86 {
namespace {

enum PrefixClass : std::uint8_t { kNone, kOperandSize, kAddressSize, kSegmentPrefix, kLock, kRepeat, kRex };

struct PrefixTable {
  std::uint8_t classes[2][256];  // by 64-bit mode
};
consteval PrefixTable makePrefixTable() {
  PrefixTable t{};
  for (auto& mode : t.classes) {
    mode[0x66] = kOperandSize;
    mode[0x67] = kAddressSize;
    mode[0xf0] = kLock;
    mode[0xf2] = mode[0xf3] = kRepeat;
    for (unsigned b : {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}) mode[b] = kSegmentPrefix;
  }
  for (unsigned b = 0x40; b < 0x50; ++b) t.classes[1][b] = kRex;
  return t;
}
constexpr PrefixTable kPrefixes = makePrefixTable();

constexpr std::uint8_t segmentOf(std::uint8_t prefix) {
  switch (prefix) {
    case 0x26:
      return es;
    case 0x2e:
      return cs;
    case 0x36:
      return ss;
    case 0x3e:
      return ds;
    case 0x64:
      return fs;
    default:
      return gs;
  }
}

/// Reads the instruction's bytes; `out` is filled on the way. Steps return false with `status` set.
class Decoder {
 public:
  Decoder(const std::uint8_t* bytes, unsigned available, CodeSize size, Instruction& out)
      : start_(bytes),
        at_(bytes),
        end_(bytes + (available < kMaxInstructionLength ? available : kMaxInstructionLength)),
        full_(available >= kMaxInstructionLength),
        mode64_(size == CodeSize::bits64),
        size_(size),
        out_(out) {}

  DecodeStatus run() {
    out_ = Instruction{};
    out_.codeSize = size_;
    out_.segmentOverride = kNoSegment;
    out_.base = out_.index = kNoRegister;
    out_.scale = 1;
    bool good = readPrefixes() && readOpcode() && findRow() && checkRow() && readOperands();
    if (good && lockForbidden_) good = invalid();
    out_.length = static_cast<std::uint8_t>(at_ - start_);
    return good ? DecodeStatus::ok : status_;
  }

 private:
  bool fail(DecodeStatus status) {
    status_ = status;
    return false;
  }
  bool invalid() { return fail(DecodeStatus::invalid); }
  bool need(unsigned count) {
    if (static_cast<unsigned>(end_ - at_) >= count) return true;
    return fail(full_ ? DecodeStatus::tooLong : DecodeStatus::needMore);
  }

  bool readPrefixes() {
    const std::uint8_t(&classes)[256] = kPrefixes.classes[mode64_];
    for (;; ++at_) {
      if (!need(1)) return false;
      std::uint8_t byte = *at_;
      std::uint8_t kind = classes[byte];
      if (kind == kNone) return true;
      if (kind == kRex) {
        out_.rex = byte;
        continue;
      }
      out_.rex = 0;  // only a REX directly before the opcode counts
      notePrefix(kind, byte);
    }
  }

  void notePrefix(std::uint8_t kind, std::uint8_t byte) {
    switch (kind) {
      case kOperandSize:
        out_.operandSizePrefix = true;
        break;
      case kAddressSize:
        out_.addressSizePrefix = true;
        break;
      case kLock:
        out_.lock = true;
        break;
      case kRepeat:
        out_.repeat = byte;
        break;
      default:
        if (!mode64_ || byte >= 0x64) out_.segmentOverride = segmentOf(byte);
        break;
    }
  }

  bool readOpcode() {
    std::uint8_t byte = *at_;
    if (byte == 0x0f) return readEscape();
    if (byte == 0xc4 || byte == 0xc5 || byte == 0x62 || byte == 0x8f) {
      if (!need(2)) return false;
      std::uint8_t next = at_[1];
      // Outside 64-bit mode these are LES, LDS and BOUND, which have no register form.
      bool extended = byte == 0x8f ? (next & 0x1f) >= 8 : mode64_ || next >= 0xc0;
      if (extended) return byte == 0x8f ? rejectExtended() : byte == 0x62 ? readEvex() : readVex(byte);
    }
    return takeOpcode(0, byte);
  }

  /// XOP, which no CPU model offers, and what is no valid VEX or EVEX prefix.
  bool rejectExtended() {
    at_ += 2;
    return invalid();
  }

  bool readEscape() {
    if (!need(2)) return false;
    std::uint8_t byte = at_[1];
    if (byte != 0x38 && byte != 0x3a) {
      ++at_;
      return takeOpcode(1, byte);
    }
    if (!need(3)) return false;
    at_ += 2;
    return takeOpcode(byte == 0x38 ? 2 : 3, *at_);
  }

  bool takeOpcode(unsigned map, std::uint8_t opcode) {
    out_.map = static_cast<std::uint8_t>(map);
    out_.opcode = opcode;
    out_.opcodeOffset = static_cast<std::uint8_t>(at_ - start_);
    ++at_;
    rexR_ = (out_.rex & 4) << 1;
    rexX_ = (out_.rex & 2) << 2;
    rexB_ = (out_.rex & 1) << 3;
    wide_ = (out_.rex & 8) != 0;
    prefix_ = out_.repeat == 0xf3 ? 2 : out_.repeat == 0xf2 ? 3 : out_.operandSizePrefix ? 1 : 0;
    slot_ = &table::kTables.slots[map][opcode];
    return true;
  }

  bool readVex(std::uint8_t byte) {
    unsigned length = byte == 0xc5 ? 2 : 3;
    if (!need(length + 1)) return false;
    bool forbidden = out_.operandSizePrefix || out_.repeat != 0 || out_.lock || out_.rex != 0;
    std::uint8_t first = at_[1];
    std::uint8_t last = at_[length - 1];
    unsigned map = length == 2 ? 1 : first & 0x1f;
    if (forbidden || map < 1 || map > 3) return rejectExtended();
    at_ += length;
    takeOpcode(map, *at_);
    out_.encoding = Encoding::vex;
    out_.vexL = (last >> 2) & 1;
    out_.vexV = (~last >> 3) & 15;
    prefix_ = last & 3;
    rawVvvv_ = out_.vexV;
    if (mode64_) {
      rexR_ = (~first & 0x80) >> 4;
      if (length == 3) {
        rexX_ = (~first & 0x40) >> 3;
        rexB_ = (~first & 0x20) >> 2;
      }
    } else {
      out_.vexV &= 7;
    }
    out_.vexW = length == 3 && (last & 0x80) != 0;
    wide_ = out_.vexW;
    slot_ = &table::kTables.slots[map + 3][out_.opcode];
    return true;
  }

  /// SDM vol. 2, 2.7.1. Maps 5 and 6 (FP16) are not offered.
  bool readEvex() {
    if (!need(5)) return false;
    bool forbidden = out_.operandSizePrefix || out_.repeat != 0 || out_.lock || out_.rex != 0;
    std::uint8_t p0 = at_[1], p1 = at_[2], p2 = at_[3];
    unsigned map = p0 & 15;
    bool indexBit = !mode64_ && (p2 & 8) == 0;  // V' must be 1 outside 64-bit mode
    if (forbidden || map < 1 || map > 3 || (p1 & 4) == 0 || indexBit) return rejectExtended();
    at_ += 4;
    takeOpcode(map, *at_);
    out_.encoding = Encoding::evex;
    out_.evexLength = (p2 >> 5) & 3;
    out_.evexB = (p2 & 0x10) != 0;
    out_.zeroing = (p2 & 0x80) != 0;
    out_.opmask = p2 & 7;
    out_.vexW = (p1 & 0x80) != 0;
    wide_ = out_.vexW;
    prefix_ = p1 & 3;
    out_.vexV = (~p1 >> 3) & 15;
    evexV_ = (~p2 & 8) << 1;
    rawVvvv_ = static_cast<std::uint8_t>(out_.vexV | evexV_);
    if (mode64_) {
      rexR_ = static_cast<std::uint8_t>((~p0 & 0x80) >> 4 | (~p0 & 0x10));
      rexX_ = (~p0 & 0x40) >> 3;
      rexB_ = (~p0 & 0x20) >> 2;
      out_.vexV |= evexV_;
    } else {
      out_.vexV &= 7;
    }
    slot_ = &table::kTables.slots[map + 6][out_.opcode];
    return true;
  }

  /// The vector length, which embedded rounding makes 512 bits (SDM vol. 2, 2.7.8).
  void setEvexLength() {
    bool rounding = out_.evexB && out_.mod == 3;
    out_.vexL = rounding ? 2 : out_.evexLength;
    if (out_.mod == 3) out_.rm |= static_cast<std::uint8_t>(rexX_ << 1);
  }

  /// Which fields may be set (SDM vol. 2, 2.7.11).
  bool validEvex() const {
    std::uint32_t a = out_.info->attributes;
    bool memory = out_.mod != 3;
    if (out_.evexB && (a & (memory ? attribute::broadcasts : attribute::rounds)) == 0) return false;
    if (out_.opmask != 0 && (a & attribute::masked) == 0) return false;
    if (out_.opmask == 0 && (out_.zeroing || (facts_ & table::fact::needsMask))) return false;
    if (out_.zeroing && ((a & attribute::zeroing) == 0 || (memory && (a & attribute::writesRm)))) return false;
    // The vector of indices takes V' for its own number.
    bool usesV = (facts_ & table::fact::usesVvvv) != 0;
    std::uint8_t unused = a & attribute::vsib ? rawVvvv_ & 15 : rawVvvv_;
    if (!usesV && unused != 0) return false;
    return (a & attribute::regIsGpr) == 0 || out_.reg < 16;
  }

  /// Takes ModRM if the opcode has it, and looks up the row.
  bool findRow() {
    if (slot_->modrm) {
      if (!need(1)) return false;
      out_.modrmOffset = static_cast<std::uint8_t>(at_ - start_);
      std::uint8_t modrm = *at_++;
      out_.hasModrm = true;
      out_.modrm = modrm;
      out_.mod = modrm >> 6;
      out_.reg = static_cast<std::uint8_t>(((modrm >> 3) & 7) | rexR_);
      out_.rm = static_cast<std::uint8_t>((modrm & 7) | rexB_);
    } else {
      out_.rm = static_cast<std::uint8_t>((out_.opcode & 7) | rexB_);
    }
    if (out_.encoding == Encoding::evex) {
      setEvexLength();
      if (out_.vexL > 2) return invalid();
    }
    unsigned index = slot_->base;
    if (slot_->dimensions != 0) {
      table::Selector s{prefix_,
                        out_.mod == 3,
                        static_cast<std::uint8_t>(out_.reg & 7),
                        static_cast<std::uint8_t>(out_.rm & 7),
                        mode64_,
                        wide_,
                        out_.vexL,
                        rexB_ != 0};
      index = table::leafIndex(*slot_, s);
      if (slot_->dimensions & table::dimension::prefix) out_.vexPp = prefix_;
    }
    unsigned row = table::kTables.leaves[index];
    if (row == 0) return invalid();
    out_.info = &table::kTables.infos[row];
    facts_ = table::kTables.facts[row];
    return true;
  }

  bool checkRow() {
    std::uint32_t attributes = out_.info->attributes;
    if (out_.info->form == Form::r_c || out_.info->form == Form::c_r) {
      out_.mod = 3;  // MOV to and from CR and DR ignore mod
      if (!validControl()) return invalid();
    }
    bool memory = out_.hasModrm && out_.mod != 3;
    // REX.B names no other x87 register, nor another one than AX (FNSTSW).
    if (!memory && (attributes & attribute::x87) && out_.map == 0) out_.rm &= 7;
    // Found invalid at the end only: more than 15 bytes are a #GP even so.
    lockForbidden_ = out_.lock && !(memory && (attributes & attribute::lockable));
    if (out_.encoding == Encoding::vex && !(facts_ & table::fact::usesVvvv) && rawVvvv_ != 0) return invalid();
    if (out_.encoding == Encoding::evex && !validEvex()) return invalid();
    if ((facts_ & table::fact::regIsMask) && out_.reg > 7) return invalid();
    if ((facts_ & table::fact::vvvvIsMask) && out_.vexV > 7) return invalid();
    if (attributes & attribute::avx512) narrowRm(attributes);
    setSizes(attributes);
    return true;
  }

  /// A mask register or general register in rm: extension bits beyond its numbers are ignored.
  void narrowRm(std::uint32_t attributes) {
    if (out_.mod != 3) return;
    if (attributes & attribute::rmIsGpr) out_.rm &= 15;
    if (facts_ & table::fact::rmIsMask) out_.rm &= 7;
  }

  bool validControl() const {
    if (out_.opcode & 1) return out_.reg < 8;
    return out_.reg < 8 || out_.reg == 8;  // the row's set leaves 0, 2, 3, 4
  }

  void setSizes(std::uint32_t attributes) {
    bool prefix66 = out_.operandSizePrefix && !(facts_ & (table::fact::mandatory66 | table::fact::sizedByW));
    bool w = wide_ && mode64_;
    if (size_ == CodeSize::bits64) {
      bool eight = w || (attributes & attribute::force64) || ((attributes & attribute::default64) && !prefix66);
      out_.operandSize = eight ? 8 : prefix66 ? 2 : 4;
      out_.addressSize = out_.addressSizePrefix ? 4 : 8;
    } else {
      bool is32 = size_ == CodeSize::bits32;
      out_.operandSize = (facts_ & table::fact::sizedByW) || is32 != prefix66 ? 4 : 2;
      out_.addressSize = is32 != out_.addressSizePrefix ? 4 : 2;
    }
    if (attributes & attribute::byteForm) out_.operandSize = 1;
  }

  bool readOperands() {
    if (out_.hasModrm && out_.mod != 3) {
      out_.memory = true;
      if (!(out_.addressSize == 2 ? readAddress16() : readAddress32())) return false;
    }
    if ((out_.info->attributes & attribute::vsib) && !validGather()) return invalid();
    return out_.info->immediate == Immediate::none || readImmediate();
  }

  bool readAddress16() {
    static constexpr std::uint8_t kBase[8] = {rbx, rbx, rbp, rbp, rsi, rdi, rbp, rbx};
    static constexpr std::uint8_t kIndex[8] = {rsi, rdi, rsi, rdi, kNoRegister, kNoRegister, kNoRegister, kNoRegister};
    if (out_.info->attributes & attribute::vsib) return invalid();
    unsigned rm = out_.rm & 7;
    unsigned displacement = out_.mod == 2 ? 2 : out_.mod;
    if (out_.mod == 0 && rm == 6) {
      displacement = 2;
    } else {
      out_.base = kBase[rm];
      out_.index = kIndex[rm];
    }
    setSegment();
    return readDisplacement(displacement);
  }

  bool readAddress32() {
    unsigned rm = out_.modrm & 7;
    unsigned displacement = out_.mod == 2 ? 4 : out_.mod;
    if (rm == 4) {
      if (!readSib(displacement)) return false;
    } else if (out_.info->attributes & attribute::vsib) {
      return invalid();
    } else if (rm == 5 && out_.mod == 0) {
      displacement = 4;
      out_.ripRelative = mode64_;
    } else {
      out_.base = out_.rm;
    }
    setSegment();
    return readDisplacement(displacement);
  }

  bool readSib(unsigned& displacement) {
    if (!need(1)) return false;
    std::uint8_t sib = *at_++;
    std::uint8_t index = static_cast<std::uint8_t>(((sib >> 3) & 7) | rexX_);
    if (out_.info->attributes & attribute::vsib) index |= mode64_ ? evexV_ : 0;
    if (index != 4 || (out_.info->attributes & attribute::vsib)) {
      out_.index = index;
      out_.scale = static_cast<std::uint8_t>(1u << (sib >> 6));
    }
    if ((sib & 7) == 5 && out_.mod == 0) {
      displacement = 4;
    } else {
      out_.base = static_cast<std::uint8_t>((sib & 7) | rexB_);
    }
    return true;
  }

  void setSegment() {
    bool stack = out_.base == rsp || out_.base == rbp;
    out_.segment =
        out_.segmentOverride != kNoSegment ? out_.segmentOverride : static_cast<std::uint8_t>(stack ? ss : ds);
  }

  bool readDisplacement(unsigned size) {
    if (size == 0) return true;
    if (!need(size)) return false;
    out_.displacementOffset = static_cast<std::uint8_t>(at_ - start_);
    out_.displacementSize = static_cast<std::uint8_t>(size);
    out_.displacement = static_cast<std::int64_t>(readSigned(size));
    if (size == 1 && out_.encoding == Encoding::evex) out_.displacement *= displacementUnit(out_);
    return true;
  }

  /// The next `size` bytes (1, 2, 4, 8), sign-extended.
  std::uint64_t readSigned(unsigned size) {
    const std::uint8_t* p = at_;
    at_ += size;
    switch (size) {
      case 1:
        return static_cast<std::uint64_t>(static_cast<std::int8_t>(*p));
      case 2:
        return static_cast<std::uint64_t>(loadLe<std::int16_t>(p));
      case 4:
        return static_cast<std::uint64_t>(loadLe<std::int32_t>(p));
      default:
        return loadLe<std::uint64_t>(p);
    }
  }

  /// VSIB gathers: destination, index and mask must differ (SDM vol. 2, 2.3.12; EVEX: destination and index).
  bool validGather() const {
    std::uint8_t index = mode64_ ? out_.index : out_.index & 7;
    if (out_.encoding == Encoding::evex) return out_.info->op == Op::scatter || out_.reg != index;
    return out_.reg != index && out_.reg != out_.vexV && index != out_.vexV;
  }

  bool readImmediate() {
    unsigned wide = out_.operandSize == 2 ? 2 : 4;
    switch (out_.info->immediate) {
      case Immediate::byteSigned:
      case Immediate::relative8:
        return takeImmediate(1);
      case Immediate::byte:
        return takeImmediate(1) && truncate(0xff);
      case Immediate::word:
        return takeImmediate(2) && truncate(0xffff);
      case Immediate::z:
      case Immediate::relativeZ:
        return takeImmediate(wide);
      case Immediate::v:
        return takeImmediate(out_.operandSize);
      case Immediate::wordByte:
        return takeImmediate(2) && truncate(0xffff) && takeSecond(1);
      case Immediate::farPointer:
        return takeImmediate(wide) && truncate(wide == 2 ? 0xffff : 0xffffffff) && takeSecond(2);
      case Immediate::offset:
        return takeOffset();
      case Immediate::none:
        break;
    }
    return true;
  }

  bool takeImmediate(unsigned size) {
    if (!need(size)) return false;
    out_.immediateOffset = static_cast<std::uint8_t>(at_ - start_);
    out_.immediateSize = static_cast<std::uint8_t>(size);
    out_.immediate = readSigned(size);
    return true;
  }
  bool truncate(std::uint64_t mask) {
    out_.immediate &= mask;
    return true;
  }
  bool takeSecond(unsigned size) {
    if (!need(size)) return false;
    out_.immediate2 = static_cast<std::uint16_t>(readSigned(size) & (size == 1 ? 0xff : 0xffff));
    out_.immediateSize = static_cast<std::uint8_t>(out_.immediateSize + size);
    return true;
  }
  /// moffs: an absolute offset of address size, zero-extended.
  bool takeOffset() {
    unsigned size = out_.addressSize;
    if (!readDisplacement(size)) return false;
    if (size < 8) out_.displacement &= (std::int64_t{1} << (8 * size)) - 1;
    out_.memory = true;
    out_.segment = out_.segmentOverride != kNoSegment ? out_.segmentOverride : static_cast<std::uint8_t>(ds);
    return true;
  }

  const std::uint8_t* start_;
  const std::uint8_t* at_;
  const std::uint8_t* end_;
  bool full_;
  bool lockForbidden_ = false;
  bool mode64_;
  CodeSize size_;
  Instruction& out_;
  DecodeStatus status_ = DecodeStatus::ok;
  const table::Slot* slot_ = nullptr;
  std::uint8_t rexR_ = 0, rexX_ = 0, rexB_ = 0;
  std::uint8_t prefix_ = 0;  // mandatory prefix: 0 none, 1 66, 2 F3, 3 F2
  std::uint8_t rawVvvv_ = 0;
  std::uint8_t evexV_ = 0;  // EVEX.V' as bit 4
  std::uint8_t facts_ = 0;
  bool wide_ = false;  // REX.W or VEX.W
};

}  // namespace

DecodeStatus decode(const std::uint8_t* bytes, unsigned available, CodeSize size, Instruction& out) {
  return Decoder(bytes, available, size, out).run();
}

}  // namespace lodge::x86
