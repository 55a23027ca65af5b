// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/instruction.h"

namespace lodge::translate {

/// Host registers by their encoding. Guest registers 0-3 and 5-11 live in the host registers of the same number.
namespace host {
inline constexpr std::uint8_t rax = 0, rcx = 1, rdx = 2, rbx = 3, rsp = 4, rbp = 5, rsi = 6, rdi = 7, r8 = 8, r9 = 9,
                              r10 = 10, r11 = 11, r12 = 12, r13 = 13, r14 = 14, r15 = 15, rip = 0xf0, none = 0xff;
/// RSP points to CpuState, r15 is guest RSP, r12-r14 are scratch: a linear address, its page's addend, a group's
/// addend.
inline constexpr std::uint8_t state = rsp, guestRsp = r15, address = r12, addend = r13, group = r14;
}  // namespace host

/// Condition codes (SDM vol. 2, appendix B.1.4).
enum Condition : std::uint8_t {
  ccO,
  ccNo,
  ccB,
  ccAe,
  ccE,
  ccNe,
  ccBe,
  ccA,
  ccS,
  ccNs,
  ccP,
  ccNp,
  ccL,
  ccGe,
  ccLe,
  ccG
};

/// A host memory operand: segment:[base + index*scale + displacement]. With host::rip as base the displacement counts
/// from the assembler's anchor, and is encoded relative to where the code runs.
struct Mem {
  std::uint8_t base = host::none;
  std::uint8_t index = host::none;
  std::uint8_t scale = 1;
  std::uint8_t segmentPrefix = 0;  ///< 0x65 for GS, or 0
  std::int32_t displacement = 0;
};
inline Mem atState(std::int32_t offset) {
  return Mem{.base = host::state, .displacement = offset};
}

/// What goes into ModRM.rm: a register or a memory operand.
struct RegMem {
  bool isMemory;
  std::uint8_t reg;
  Mem mem;
  RegMem(std::uint8_t r) : isMemory(false), reg(r) {}                // NOLINT(google-explicit-constructor)
  RegMem(const Mem& m) : isMemory(true), reg(host::none), mem(m) {}  // NOLINT(google-explicit-constructor)
};

/// Writes x86-64 instructions one after the other into memory that the code will run from at another address.
/// Not checked against the end of its memory: the translator asks `room()` before each guest instruction.
class Assembler {
 public:
  Assembler() = default;
  /// `write`: where bytes go; `run`: the address that they will have; `capacity` bytes.
  Assembler(std::uint8_t* write, std::uint64_t run, std::uint32_t capacity)
      : write_(write), run_(run), capacity_(capacity) {}

  std::uint32_t size() const { return size_; }
  std::uint32_t room() const { return capacity_ - size_; }
  std::uint64_t here() const { return run_ + size_; }
  std::uint64_t start() const { return run_; }
  std::uint8_t* bytes() const { return write_; }

  /// What operands with host::rip count from.
  void setAnchor(std::uint64_t address) { anchor_ = address; }

  /// Takes back what was written after `size` bytes.
  void truncate(std::uint32_t size) { size_ = size; }

  void byte(std::uint8_t b) { write_[size_++] = b; }
  void bytes(const std::uint8_t* from, unsigned count);
  void word32(std::uint32_t v);
  void word64(std::uint64_t v);
  /// Multi-byte NOPs until here() is a multiple of `alignment`.
  void align(unsigned alignment);

  // One instruction each. `width` is the operand size in bytes: 1, 2, 4 or 8.
  /// Any legacy-encoded instruction. `map` as Instruction::map, `mandatory` as Instruction::vexPp.
  void legacy(unsigned width, unsigned map, std::uint8_t opcode, std::uint8_t reg, const RegMem& rm,
              unsigned mandatory = 0);
  void vex(unsigned pp, unsigned map, bool w, unsigned l, std::uint8_t opcode, std::uint8_t reg, std::uint8_t vvvv,
           const RegMem& rm);

  /// The EVEX instruction with other registers.
  void evex(const x86::Instruction& i, std::uint8_t reg, std::uint8_t vvvv, const RegMem& rm);

  void mov(unsigned width, std::uint8_t to, std::uint8_t from) { legacy(width, 0, width == 1 ? 0x88 : 0x89, from, to); }
  void load(unsigned width, std::uint8_t to, const Mem& from) { legacy(width, 0, width == 1 ? 0x8a : 0x8b, to, from); }
  void store(unsigned width, const Mem& to, std::uint8_t from) { legacy(width, 0, width == 1 ? 0x88 : 0x89, from, to); }
  void storeImmediate32(unsigned width, const Mem& to, std::int32_t value);  // width 4 or 8 (sign-extended)
  void storeImmediate8(const Mem& to, std::uint8_t value);
  void loadZeroExtend8(std::uint8_t to, const RegMem& from) { legacy(4, 1, 0xb6, to, from); }
  void loadZeroExtend16(std::uint8_t to, const RegMem& from) { legacy(4, 1, 0xb7, to, from); }
  /// The shortest MOV that puts the 64-bit value into the register.
  void movImmediate(std::uint8_t to, std::uint64_t value);
  /// Always ten bytes; the position of the 8-byte value is size() - 8 afterwards.
  void movImmediate64(std::uint8_t to, std::uint64_t value);
  void lea(unsigned width, std::uint8_t to, const Mem& from) { legacy(width, 0, 0x8d, to, from); }
  void bextr(std::uint8_t to, const RegMem& from, std::uint8_t control) { vex(0, 2, true, 0, 0xf7, to, control, from); }
  void pext(std::uint8_t to, std::uint8_t from, const RegMem& mask) { vex(2, 2, true, 0, 0xf5, to, from, mask); }
  void rotateRight(std::uint8_t to, const RegMem& from, std::uint8_t count) {  // RORX
    vex(3, 3, true, 0, 0xf0, to, 0, from);
    byte(count);
  }
  void shiftLeft(unsigned width, std::uint8_t r, std::uint8_t count);
  void shiftRight(unsigned width, std::uint8_t r, std::uint8_t count);
  void testImmediate8(std::uint8_t r, std::uint8_t value);
  void testImmediate32(std::uint8_t r, std::uint32_t value);
  /// op: 0 ADD, 1 OR, 4 AND, 5 SUB, 6 XOR, 7 CMP (ModRM.reg of opcode groups 80-83).
  void arithmeticImmediate(unsigned width, unsigned op, const RegMem& rm, std::int32_t value);
  void arithmetic(unsigned width, unsigned op, std::uint8_t to, const RegMem& from);
  void lahf() { byte(0x9f); }
  void sahf() { byte(0x9e); }
  void setcc(Condition cc, const RegMem& rm) { legacy(1, 1, static_cast<std::uint8_t>(0x90 + cc), 0, rm); }

  // Jumps: rel32 always; the return value is where the rel32 lies, for patch().
  std::uint32_t jmp();
  std::uint32_t jcc(Condition cc);
  std::uint32_t call();
  void jmpTo(std::uint64_t target) { patchTo(jmp(), target); }
  void jccTo(Condition cc, std::uint64_t target) { patchTo(jcc(cc), target); }
  void callTo(std::uint64_t target) { patchTo(call(), target); }
  void jmpIndirect(const RegMem& rm) { legacy(4, 0, 0xff, 4, rm); }
  /// Makes the rel32 at `at` lead to `target`, or here.
  void patchTo(std::uint32_t at, std::uint64_t target);
  void patchHere(std::uint32_t at) { patchTo(at, here()); }
  /// Pads with NOPs so that the 4 bytes that follow `before` bytes from here lie in one cache line, and can be changed
  /// atomically while other CPUs run them.
  void keepTogether(unsigned before, unsigned bytes);

  /// The guest instruction again with other registers: `bytes` are its bytes; `reg`, `rm`, `vvvv` are encodings that
  /// replace those fields. Prefixes for segments and address size are dropped, LOCK/REP/66 kept.
  void reencode(const x86::Instruction& instruction, const std::uint8_t* bytes, std::uint8_t reg, const RegMem& rm,
                std::uint8_t vvvv);

 private:
  void modrm(std::uint8_t reg, const RegMem& rm, int unit = 1);
  void rex(bool w, std::uint8_t reg, const RegMem& rm, bool force);
  void opcodeMap(unsigned map);

  std::uint8_t* write_ = nullptr;
  std::uint64_t run_ = 0;
  std::uint32_t size_ = 0;
  std::uint64_t anchor_ = 0;
  std::uint8_t trailing_ = 0;  ///< bytes of an immediate behind the memory operand
  std::uint32_t capacity_ = 0;
};

}  // namespace lodge::translate
