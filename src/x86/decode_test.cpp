// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <initializer_list>
#include <vector>

#include "x86/instruction.h"
#include "x86/opcode_table.h"

namespace lodge::x86 {
namespace {

struct Decoded {
  DecodeStatus status;
  Instruction i;
};
Decoded decodeBytes(std::initializer_list<int> list, CodeSize size = CodeSize::bits64) {
  std::vector<std::uint8_t> bytes(list.begin(), list.end());
  Decoded d{};
  d.status = decode(bytes.data(), static_cast<unsigned>(bytes.size()), size, d.i);
  return d;
}

TEST(Decode, asksForMoreBytesUntilComplete) {
  const std::uint8_t bytes[] = {0x48, 0x81, 0x84, 0x88, 1, 2, 3, 4, 5, 6, 7, 8};  // add qword [rax+rcx*4+d32], imm32
  Instruction i;
  for (unsigned n = 0; n < sizeof bytes; ++n)
    EXPECT_EQ(decode(bytes, n, CodeSize::bits64, i), DecodeStatus::needMore) << n;
  ASSERT_EQ(decode(bytes, sizeof bytes, CodeSize::bits64, i), DecodeStatus::ok);
  EXPECT_EQ(i.length, 12);
  EXPECT_EQ(i.info->op, Op::add);
  EXPECT_EQ(i.operandSize, 8);
  EXPECT_EQ(i.base, rax);
  EXPECT_EQ(i.index, rcx);
  EXPECT_EQ(i.scale, 4);
  EXPECT_EQ(i.displacement, 0x04030201);
  EXPECT_EQ(i.displacementOffset, 4);
  EXPECT_EQ(i.immediate, 0x08070605u);
  EXPECT_EQ(i.immediateOffset, 8);
  EXPECT_EQ(i.modrmOffset, 2);
  EXPECT_EQ(i.opcodeOffset, 1);
}

TEST(Decode, fifteenBytesAreTheLimit) {
  std::uint8_t bytes[16];
  for (auto& b : bytes) b = 0x66;
  Instruction i;
  EXPECT_EQ(decode(bytes, 14, CodeSize::bits64, i), DecodeStatus::needMore);
  EXPECT_EQ(decode(bytes, 15, CodeSize::bits64, i), DecodeStatus::tooLong);
  bytes[14] = 0x90;
  EXPECT_EQ(decode(bytes, 16, CodeSize::bits64, i), DecodeStatus::ok);
  EXPECT_EQ(i.length, 15);
}

TEST(Decode, tooLongComesBeforeAWrongLock) {
  // LOCK CVTPD2PS xmm0, [rsi+0x57], of 16 bytes.
  const std::uint8_t bytes[] = {0xf0, 0x48, 0x64, 0x64, 0x26, 0x26, 0x65, 0x66, 0x66, 0x0f, 0x5a, 0x86, 0x57, 0, 0, 0};
  Instruction i;
  EXPECT_EQ(decode(bytes, 15, CodeSize::bits64, i), DecodeStatus::tooLong);
  EXPECT_EQ(decode(bytes + 1, 15, CodeSize::bits64, i), DecodeStatus::ok);
}

TEST(Decode, lockNeedsALockableMemoryDestination) {
  EXPECT_EQ(decodeBytes({0xf0, 0x01, 0x03}).status, DecodeStatus::ok);
  EXPECT_EQ(decodeBytes({0xf0, 0x01, 0xc3}).status, DecodeStatus::invalid);
  EXPECT_EQ(decodeBytes({0xf0, 0x03, 0x03}).status, DecodeStatus::invalid);
  EXPECT_EQ(decodeBytes({0xf0, 0x39, 0x03}).status, DecodeStatus::invalid);
  EXPECT_EQ(decodeBytes({0xf0, 0x89, 0x03}).status, DecodeStatus::invalid);
  EXPECT_EQ(decodeBytes({0xf0, 0x0f, 0xa3, 0x03}).status, DecodeStatus::invalid);
  EXPECT_EQ(decodeBytes({0xf0, 0x0f, 0xab, 0x03}).status, DecodeStatus::ok);
}

TEST(Decode, vexRejectsPrefixesBeforeIt) {
  EXPECT_EQ(decodeBytes({0xc5, 0xf8, 0x58, 0xc1}).status, DecodeStatus::ok);
  for (int prefix : {0x66, 0xf2, 0xf3, 0xf0, 0x40, 0x48}) {
    EXPECT_EQ(decodeBytes({prefix, 0xc5, 0xf8, 0x58, 0xc1}).status, DecodeStatus::invalid) << prefix;
  }
  EXPECT_EQ(decodeBytes({0x2e, 0xc5, 0xf8, 0x58, 0xc1}).status, DecodeStatus::ok);
}

TEST(Decode, vexFieldConstraints) {
  EXPECT_EQ(decodeBytes({0xc5, 0xf0, 0x10, 0xc1}).status, DecodeStatus::invalid);        // vmovups with vvvv
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x7d, 0x16, 0xc1}).status, DecodeStatus::ok);       // vpermps ymm
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x79, 0x16, 0xc1}).status, DecodeStatus::invalid);  // VEX.L = 0
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0xfd, 0x16, 0xc1}).status, DecodeStatus::invalid);  // W = 1
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x74, 0xf2, 0xc1}).status, DecodeStatus::invalid);  // andn with L = 1
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x08}).status,
            DecodeStatus::ok);  // vpgatherdd xmm0,[rax+xmm1],xmm2
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x71, 0x90, 0x04, 0x08}).status, DecodeStatus::invalid);  // index = mask
  EXPECT_EQ(decodeBytes({0xc4, 0xe2, 0x69, 0x90, 0x00}).status, DecodeStatus::invalid);        // no SIB
}

TEST(Decode, segments) {
  EXPECT_EQ(decodeBytes({0x8b, 0x45, 0x00}).i.segment, ss);
  EXPECT_EQ(decodeBytes({0x8b, 0x04, 0x24}).i.segment, ss);
  EXPECT_EQ(decodeBytes({0x41, 0x8b, 0x45, 0x00}).i.segment, ds);  // r13
  EXPECT_EQ(decodeBytes({0x64, 0x8b, 0x00}).i.segment, fs);
  EXPECT_EQ(decodeBytes({0x64, 0x2e, 0x8b, 0x00}).i.segment, fs);  // CS is ignored in 64-bit mode, as on silicon
  EXPECT_EQ(decodeBytes({0x64, 0x2e, 0x8b, 0x00}, CodeSize::bits32).i.segment, cs);
  EXPECT_EQ(decodeBytes({0x8b, 0x42, 0x00}, CodeSize::bits16).i.segment, ss);  // [bp+si]
}

TEST(Decode, rexMustBeTheLastPrefix) {
  Decoded d = decodeBytes({0x48, 0x66, 0x89, 0xc8});
  EXPECT_EQ(d.i.operandSize, 2);
  EXPECT_EQ(d.i.rex, 0);
  d = decodeBytes({0x66, 0x48, 0x89, 0xc8});
  EXPECT_EQ(d.i.operandSize, 8);
}

TEST(Decode, xchgWithRexBIsNoPause) {
  EXPECT_EQ(decodeBytes({0x90}).i.info->op, Op::nop);
  EXPECT_EQ(decodeBytes({0xf3, 0x90}).i.info->op, Op::pause);
  EXPECT_EQ(decodeBytes({0x41, 0x90}).i.info->op, Op::xchg);
  EXPECT_EQ(decodeBytes({0x41, 0x90}).i.rm, r8);
  EXPECT_EQ(decodeBytes({0xf3, 0x41, 0x90}).i.info->op, Op::xchg);
}

TEST(Decode, immediates) {
  EXPECT_EQ(decodeBytes({0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0x88}).i.immediate, 0x8807060504030201u);
  EXPECT_EQ(decodeBytes({0x83, 0xc0, 0xff}).i.immediate, ~0ull);
  EXPECT_EQ(decodeBytes({0xc1, 0xe0, 0xff}).i.immediate, 0xffu);
  EXPECT_EQ(decodeBytes({0xeb, 0xfe}).i.immediate, ~0ull - 1);
  EXPECT_EQ(decodeBytes({0x66, 0xe9, 0xfe, 0xff, 0xff, 0xff}).i.length, 6);  // 66 ignored in 64-bit mode
  EXPECT_EQ(decodeBytes({0x66, 0xe9, 0xfe, 0xff}, CodeSize::bits32).i.length, 4);
  Decoded enter = decodeBytes({0xc8, 0x34, 0x12, 0x05});
  EXPECT_EQ(enter.i.immediate, 0x1234u);
  EXPECT_EQ(enter.i.immediate2, 5u);
  Decoded far = decodeBytes({0xea, 0x78, 0x56, 0x34, 0xf2, 0x08, 0x00}, CodeSize::bits32);
  EXPECT_EQ(far.i.immediate, 0xf2345678u);
  EXPECT_EQ(far.i.immediate2, 8u);
  Decoded moffs = decodeBytes({0x67, 0xa1, 0x78, 0x56, 0x34, 0xf2});
  EXPECT_EQ(moffs.i.displacement, 0xf2345678);
  EXPECT_TRUE(moffs.i.memory);
  EXPECT_EQ(decodeBytes({0xa1, 1, 2, 3, 4, 5, 6, 7, 0x88}).i.length, 9);
}

TEST(Decode, controlRegisters) {
  EXPECT_EQ(decodeBytes({0x0f, 0x20, 0x00}).i.mod, 3);                             // mod is ignored
  EXPECT_EQ(decodeBytes({0x0f, 0x20, 0xc8}).status, DecodeStatus::invalid);        // CR1
  EXPECT_EQ(decodeBytes({0x44, 0x0f, 0x20, 0xc0}).i.reg, 8);                       // CR8
  EXPECT_EQ(decodeBytes({0x44, 0x0f, 0x20, 0xd0}).status, DecodeStatus::invalid);  // CR10
  EXPECT_EQ(decodeBytes({0x44, 0x0f, 0x21, 0xc0}).status, DecodeStatus::invalid);  // DR8
  EXPECT_EQ(decodeBytes({0x66, 0x0f, 0x22, 0xc0}, CodeSize::bits16).i.operandSize, 4);
}

TEST(Decode, flagEffectsOfShifts) {
  EXPECT_EQ(flagEffects(decodeBytes({0xc1, 0xe0, 0x00}).i).written, 0u);
  EXPECT_EQ(flagEffects(decodeBytes({0xc1, 0xe0, 0x20}).i).written, 0u);
  EXPECT_EQ(flagEffects(decodeBytes({0x48, 0xc1, 0xe0, 0x20}).i).read, 0u);
  EXPECT_EQ(flagEffects(decodeBytes({0xd3, 0xe0}).i).read, std::uint32_t{flag::arithmetic});
  EXPECT_EQ(flagEffects(decodeBytes({0xd1, 0xe0}).i).read, 0u);
  EXPECT_EQ(flagEffects(decodeBytes({0xc1, 0xd0, 0x03}).i).read, std::uint32_t{flag::cf});
}

TEST(Decode, featuresDecideTheMeaning) {
  const OpcodeInfo& tzcnt = *decodeBytes({0xf3, 0x0f, 0xbc, 0xc1}).i.info;
  EXPECT_EQ(opcodeForFeatures(tzcnt, ~0ull)->op, Op::tzcnt);
  EXPECT_EQ(opcodeForFeatures(tzcnt, 1)->op, Op::bsf);
  const OpcodeInfo& vaes = *decodeBytes({0xc4, 0xe2, 0x7d, 0xdc, 0xc1}).i.info;
  EXPECT_EQ(opcodeForFeatures(vaes, ~0ull), &vaes);
  EXPECT_EQ(opcodeForFeatures(vaes, ~0ull & ~(1ull << unsigned(Feature::avx))), nullptr);
  EXPECT_EQ(opcodeForFeatures(vaes, ~0ull & ~(1ull << unsigned(Feature::vaes))), nullptr);
}

TEST(OpcodeTable, attributesFollowFromTheOperands) {
  for (const table::Row& row : table::rows()) {
    const OpcodeInfo& info = row.info;
    EXPECT_EQ((info.attributes & attribute::readsFlags) != 0, info.flagsRead != 0) << info.mnemonic;
    EXPECT_EQ(info.flagsWritten & info.flagsUndefined, 0u) << info.mnemonic;
    if (info.attributes & attribute::lockable) {
      EXPECT_TRUE(info.attributes & attribute::writesRm) << info.mnemonic;
    }
    if (info.cls == OpClass::native) {
      EXPECT_NE(
          info.attributes & (attribute::x87 | attribute::mmx | attribute::sse | attribute::avx | attribute::avx512), 0u)
          << info.mnemonic;
    }
    EXPECT_NE(info.mnemonic, nullptr);
  }
  std::printf("%zu opcode rows\n", table::rows().size());
}

/// Not a test of correctness: prints the time of one decode over this program's own code.
TEST(Decode, speed) {
  const auto* begin = reinterpret_cast<const std::uint8_t*>(&decode);
  std::uint64_t total = 0, count = 0;
  auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < 2000; ++round) {
    for (unsigned at = 0; at < 1500;) {
      Instruction i;
      at += decode(begin + at, 15, CodeSize::bits64, i) == DecodeStatus::ok ? i.length : 1;
      total += i.length;
      ++count;
    }
  }
  double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GT(total, 0u);
  std::printf("%.1f ns per decode\n", ns / static_cast<double>(count));
}

}  // namespace
}  // namespace lodge::x86
