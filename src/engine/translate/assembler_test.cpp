// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/assembler.h"

#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <string>

namespace lodge::translate {
namespace {

/// What an independent disassembler reads out of what the assembler wrote.
std::string disassemble(const Assembler& a) {
  std::string text;
  std::uint32_t at = 0;
  while (at < a.size()) {
    ZydisDisassembledInstruction i;
    if (!ZYAN_SUCCESS(
            ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, a.start() + at, a.bytes() + at, a.size() - at, &i))) {
      return text + "?";
    }
    text += std::string(text.empty() ? "" : "; ") + i.text;
    at += i.info.length;
  }
  return text;
}

class AssemblerTest : public testing::Test {
 protected:
  std::uint8_t buffer_[256] = {};
  Assembler a{buffer_, 0x10000000, sizeof buffer_};
};

TEST_F(AssemblerTest, MemoryOperandForms) {
  a.load(8, host::rax, Mem{.base = host::rsp, .displacement = 96});
  a.load(8, host::r13, Mem{.index = host::r13, .scale = 8, .segmentPrefix = 0x65});
  a.load(8, host::rbx, Mem{.base = host::r13});
  a.load(4, host::rbx, Mem{.base = host::rbp, .index = host::r12, .scale = 4, .displacement = 0x1000});
  a.load(8, host::r9, Mem{.base = host::r12, .displacement = -128});
  EXPECT_EQ(
      disassemble(a),
      "mov rax, [rsp+0x60]; mov r13, gs:[r13*8]; mov rbx, [r13]; mov ebx, [rbp+r12*4+0x1000]; mov r9, [r12-0x80]");
}

TEST_F(AssemblerTest, ByteRegistersGetRex) {
  a.mov(1, host::rsi, host::rax);
  a.mov(1, host::rbx, host::rdi);
  a.testImmediate8(host::rax, 7);
  a.testImmediate8(host::rbp, 7);
  a.testImmediate8(host::r12, 7);
  a.setcc(ccO, host::rax);
  a.loadZeroExtend8(host::rbx, host::rsi);
  a.loadZeroExtend8(host::rsi, host::rbx);
  EXPECT_EQ(disassemble(a),
            "mov sil, al; mov bl, dil; test al, 0x07; test bpl, 0x07; test r12b, 0x07; seto al; "
            "movzx ebx, sil; movzx esi, bl");
}

TEST_F(AssemblerTest, ImmediatesTakeTheShortestForm) {
  a.movImmediate(host::r14, 0xfffffff0);
  EXPECT_EQ(a.size(), 6u);
  a.movImmediate(host::r14, 0xffffffff81000000);
  EXPECT_EQ(a.size(), 13u);
  a.movImmediate(host::r14, 0x555555554000);
  EXPECT_EQ(a.size(), 23u);
  EXPECT_EQ(disassemble(a), "mov r14d, 0xFFFFFFF0; mov r14, 0xFFFFFFFF81000000; mov r14, 0x555555554000");
}

TEST_F(AssemblerTest, VexForms) {
  a.bextr(host::r13, host::rsi, host::r13);
  a.pext(host::r14, host::r13, atState(-128));
  EXPECT_EQ(disassemble(a), "bextr r13, rsi, r13; pext r14, r13, [rsp-0x80]");
}

TEST_F(AssemblerTest, JumpsArePatched) {
  std::uint32_t forward = a.jcc(ccNe);
  a.jmpTo(0x10000000);
  a.patchHere(forward);
  a.callTo(0x10001000);
  EXPECT_EQ(disassemble(a), "jnz 0x000000001000000B; jmp 0x0000000010000000; call 0x0000000010001000");
}

TEST_F(AssemblerTest, KeepTogetherAvoidsLineEnds) {
  for (unsigned start = 0; start < 64; ++start) {
    Assembler b(buffer_, 0x10000000, sizeof buffer_);
    for (unsigned i = 0; i < start; ++i) b.byte(0x90);
    b.keepTogether(1, 4);
    std::uint64_t first = b.here() + 1;
    EXPECT_EQ(first / 64, (first + 3) / 64) << start;
  }
}

TEST_F(AssemblerTest, AlignFillsWithLongNops) {
  a.byte(0xcc);
  a.align(16);
  EXPECT_EQ(a.size(), 16u);
  EXPECT_EQ(disassemble(a).find('?'), std::string::npos);
}

}  // namespace
}  // namespace lodge::translate
