// SPDX-License-Identifier: Apache-2.0
// Guest code in an executor, against what the same bytes do natively: they run at the addresses that they were made
// for.
#include "engine/translate/executor_code.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/memory_file.h"
#include "base/units.h"
#include "x86/cpu_model.h"
#include "x86/instruction.h"

namespace lodge::translate {
namespace {

using Place = ExecutorCode::Place;
constexpr std::uint64_t kCode = 0x5555'5555'4000, kData = 0x5555'5555'6000, kStack = 0x7fff'1234'5000;
constexpr ModeKey kKey{ModeKey::user | ModeKey::code64 | ModeKey::sse | ModeKey::x87 | ModeKey::avx |
                       ModeKey::timeStamp | ModeKey::translatable};

class ExecutorCodeTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!ExecutorProcess::isPossible()) GTEST_SKIP() << "the host has no FSGSBASE, or no BMI2";
    ram = makeMemoryFile("test-ram");
    ASSERT_EQ(::ftruncate(ram.get(), 1_MiB), 0);
    bytes = static_cast<std::uint8_t*>(::mmap(nullptr, 1_MiB, PROT_READ | PROT_WRITE, MAP_SHARED, ram.get(), 0));
    process = ExecutorProcess::start(ram.get());
    ASSERT_TRUE(process);
    code = std::make_unique<ExecutorCode>(*process, ~std::uint64_t{0});
    ExecutorState& s = process->state();
    for (unsigned r = 0; r < 16; ++r) s.gpr[r] = 0x0101'0101'0101'0101u * r;
    s.gpr[4] = kStack + 2048;
    s.xsave[24] = std::byte{0x80};
    s.xsave[25] = std::byte{0x1f};
  }
  void TearDown() override {
    if (bytes) ::munmap(bytes, 1_MiB);
  }
  /// Guest code at kCode + offset.
  void put(unsigned offset, std::initializer_list<std::uint8_t> guest) {
    std::copy(guest.begin(), guest.end(), page + offset);
  }
  std::uint64_t translate(unsigned offset) { return code->translate(*block, kCode + offset, kKey, page, nullptr); }
  /// Runs from host address `at` to the next stop.
  void run(std::uint64_t at, std::uint64_t gsBase = 0) {
    ExecutorState& s = process->state();
    s.hostPc = at;
    s.flags = 2;
    s.looks = 100;
    s.gsBase = gsBase;
    process->ask({kData, kPageSize, 0, PROT_READ | PROT_WRITE});
    process->ask({kStack, kPageSize, kPageSize, PROT_READ | PROT_WRITE});
    ASSERT_TRUE(process->run());
  }
  std::uint64_t stackWord(std::uint64_t linear) const {
    return loadLe<std::uint64_t>(bytes + kPageSize + (linear - kStack));
  }

  UniqueFd ram;
  std::uint8_t* bytes = nullptr;
  std::unique_ptr<ExecutorProcess> process;
  std::unique_ptr<ExecutorCode> code;
  std::unique_ptr<Block> block = std::make_unique<Block>();
  alignas(64) std::uint8_t page[kPageSize] = {};
};

TEST_F(ExecutorCodeTest, RelativeOperandsReachWhatTheyName) {
  storeLe(bytes + 0x10, std::uint64_t{0x1122'3344'5566'7788});
  // MOV RAX, [RIP + to kData + 16]; ADD [RIP + the same], RAX; LEA R11, [RIP]; UD2
  put(0, {0x48, 0x8b, 0x05, 0x09, 0x20, 0, 0, 0x48, 0x01, 0x05, 0x02, 0x20,
          0,    0,    0x4c, 0x8d, 0x1d, 0, 0, 0,    0,    0x0f, 0x0b});
  run(translate(0));
  ExecutorState& s = process->state();
  EXPECT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
  EXPECT_EQ(s.exitRip, kCode + 21);
  EXPECT_EQ(s.gpr[0], 0x1122'3344'5566'7788u);
  EXPECT_EQ(loadLe<std::uint64_t>(bytes + 0x10), 2 * 0x1122'3344'5566'7788u);
  EXPECT_EQ(s.gpr[11], kCode + 21);
}

TEST_F(ExecutorCodeTest, AFaultThroughAScratchRegisterTellsWhichToRestore) {
  put(0, {0x48, 0x01, 0x05, 0, 0, 0x10, 0});  // ADD [RIP + 1 MiB], RAX: nothing is there
  run(translate(0));
  ExecutorState& s = process->state();
  ASSERT_EQ(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
  EXPECT_EQ(s.faultAddress, kCode + 7 + 0x100000);
  Place place{};
  ASSERT_TRUE(code->locate(s.hostPc, place));
  EXPECT_EQ(place.kind, Place::Kind::restore);
  EXPECT_EQ(place.rip, kCode);
  EXPECT_EQ(s.spill[0], 0x0101'0101'0101'0101u * place.reg);
}

TEST_F(ExecutorCodeTest, GsIsTheGuests) {
  storeLe(bytes + 0x18, std::uint64_t{77});
  put(0, {0x65, 0x48, 0x8b, 0x04, 0x25, 0x18, 0, 0, 0, 0x0f, 0x0b});  // MOV RAX, GS:[24]; UD2
  std::uint64_t host = translate(0);
  run(host, kData);
  EXPECT_EQ(process->state().reason, EXECUTOR_REASON_STEP + 0u);
  EXPECT_EQ(process->state().gpr[0], 77u);
  EXPECT_EQ(process->state().gsBase, kData);
}

TEST_F(ExecutorCodeTest, LeadsToCodeThatRunsAsItIsAndBack) {
  constexpr std::uint64_t kPlain = 0x7f12'0000'0000;
  // JMP kCode + 0x100, which is led elsewhere; UD2
  put(0, {0xe9, 0xfb, 0, 0, 0});
  put(5, {0x0f, 0x0b});
  std::uint64_t host = translate(0), back = translate(5);
  // INC RBX; MOV RAX, kCode + 5; JMP RAX: a fault there, as the page cannot be executed
  std::uint8_t* plain = bytes + 2 * kPageSize;
  const std::uint8_t jumps[] = {0x48, 0xff, 0xc3, 0x48, 0xb8, 5, 0x40, 0x55, 0x55, 0x55, 0x55, 0, 0, 0xff, 0xe0};
  std::copy(std::begin(jumps), std::end(jumps), plain);
  std::uint64_t way = code->wayTo(kPlain);
  ASSERT_NE(way, 0u);
  EXPECT_EQ(code->wayTo(kPlain), way);
  Place place{};
  ASSERT_TRUE(code->locate(way, place));
  EXPECT_EQ(place.rip, kPlain);
  EXPECT_EQ(place.kind, Place::Kind::boundary);
  code->follow(0, way);
  ExecutorState& s = process->state();
  process->ask({kPlain, kPageSize, 2 * kPageSize, PROT_READ | PROT_EXEC});
  run(host);
  ASSERT_EQ(s.reason, EXECUTOR_REASON_SIGNAL + 0u);  // nobody has said where kCode + 5 is translated
  EXPECT_EQ(s.hostPc, kCode + 5);
  EXPECT_EQ(s.faultAddress, kCode + 5);
  code->enterTarget(kCode + 5, back, false);
  run(host);
  ASSERT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
  EXPECT_EQ(s.exitRip, kCode + 5);
  EXPECT_EQ(s.gpr[3], 0x0303'0303'0303'0305u);
  EXPECT_EQ(s.crossings, 1u);
  // What is entered anew counts: in both tables, and only if it was there.
  code->correctTarget(kCode + 5, way);
  EXPECT_EQ(process->targets()[(kCode + 5) % ExecutorTarget::kCount].host, way);
  code->correctTarget(kCode + 7, way);
  EXPECT_EQ(process->targets()[(kCode + 7) % ExecutorTarget::kCount].host, 0u);
  code->enterTarget(kCode + 5, back, false);
  run(host);
  EXPECT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
  // What is entered as running as it is, but is not shown, is the machine's.
  code->enterTarget(kPlain, kPlain, false);
  process->ask({kPlain, kPageSize, ExecutorCommand::kNothing, 0});
  run(host);
  ASSERT_EQ(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
  EXPECT_EQ(s.hostPc, kPlain);
}

/// The number of a link comes from memory that guest code can write.
TEST_F(ExecutorCodeTest, ALinkThatIsNotThereIsNotFollowed) {
  std::vector<std::uint8_t> before(process->code(), process->code() + 64 * 1024);
  for (std::uint32_t link : {code->linkCount(), ~std::uint32_t{0}, std::uint32_t{1} << 31}) code->follow(link, 0x1234);
  EXPECT_EQ(std::memcmp(before.data(), process->code(), before.size()), 0);
}

TEST_F(ExecutorCodeTest, X87InstructionsAreTheInterpretersIfAsked) {
  put(0, {0xd9, 0xe8, 0x0f, 0x0b});  // FLD1; UD2
  run(translate(0));
  EXPECT_EQ(process->state().exitRip, kCode + 2);
  code->clear();
  code->setStepsX87(true);
  run(translate(0));
  EXPECT_EQ(process->state().exitRip, kCode);
}

TEST_F(ExecutorCodeTest, CallsLeaveTheGuestsReturnAddress) {
  put(0, {0xe8, 0xfb, 0, 0, 0});  // CALL kCode + 0x100
  put(0x100, {0xc3});             // RET
  put(5, {0x0f, 0x0b});           // UD2
  std::uint64_t host = translate(0);
  ASSERT_EQ(code->successors().size(), 2u);
  run(host);
  ExecutorState& s = process->state();
  ASSERT_EQ(s.reason, EXECUTOR_REASON_LINK + 0u);
  EXPECT_EQ(code->linkTarget(s.info), kCode + 0x100);
  EXPECT_EQ(s.gpr[4], kStack + 2040);
  EXPECT_EQ(stackWord(kStack + 2040), kCode + 5);
  code->follow(s.info, translate(0x100));
  s.gpr[4] = kStack + 2048;
  run(host);
  // The return finds no code yet: nothing of it is done.
  ASSERT_EQ(s.reason, EXECUTOR_REASON_INDIRECT + 0u);
  EXPECT_EQ(s.exitRip, kCode + 5);
  EXPECT_EQ(code->siteOf(s.info), kCode + 0x100);
  EXPECT_EQ(s.gpr[4], kStack + 2040);
  for (unsigned r : {0u, 1u, 2u}) EXPECT_EQ(s.gpr[r], 0x0101'0101'0101'0101u * r);
  // Whether the first table has it or the second.
  for (bool first : {false, true}) {
    if (!first) code->enterTarget(kCode + 0x10005, translate(0), true);  // takes its place in the first
    code->enterTarget(kCode + 5, translate(5), first);
    s.gpr[4] = kStack + 2048;
    run(host);
    EXPECT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
    EXPECT_EQ(s.exitRip, kCode + 5);
    EXPECT_EQ(s.gpr[4], kStack + 2048);
    for (unsigned r : {0u, 1u, 2u}) EXPECT_EQ(s.gpr[r], 0x0101'0101'0101'0101u * r);
  }
}

TEST_F(ExecutorCodeTest, DroppedCodeIsLeftAtItsBeginning) {
  put(0, {0x90, 0xeb, 0xfd});  // NOP; JMP back
  std::uint64_t host = translate(0);
  put(0, {0x0f, 0x0b});
  code->dropPage(kCode);
  EXPECT_EQ(code->find(kCode), 0u);
  run(host);
  ExecutorState& s = process->state();
  ASSERT_EQ(s.reason, EXECUTOR_REASON_LINK + 0u);
  EXPECT_EQ(code->linkTarget(s.info), kCode);
  code->follow(s.info, translate(0));
  run(host);
  EXPECT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
}

TEST_F(ExecutorCodeTest, TheTimeStampIsTheGuests) {
  put(0, {0x0f, 0x31, 0x0f, 0x0b});  // RDTSC; UD2
  ExecutorState& s = process->state();
  s.tscOffset = std::uint64_t{1} << 62;
  run(translate(0));
  EXPECT_EQ(s.gpr[2] >> 30 & 1, 1u);
  EXPECT_EQ(s.gpr[0] >> 32, 0u);
  EXPECT_EQ(s.gpr[2] >> 32, 0u);
  EXPECT_EQ(s.gpr[1], 0x0101'0101'0101'0101u);
}

TEST_F(ExecutorCodeTest, TheTimeStampIsOfTheGuestsRate) {
  for (auto [guest, host] : {std::pair{1u, 2u}, std::pair{17u, 10u}, std::pair{1u, 25u}, std::pair{300u, 1u}}) {
    x86::TscScale scale = x86::TscScale::between(guest, host);
    code = std::make_unique<ExecutorCode>(*process, ~std::uint64_t{0}, scale);
    put(0, {0x0f, 0x31, 0x0f, 0x0b});        // RDTSC; UD2
    put(8, {0x0f, 0x01, 0xf9, 0x0f, 0x0b});  // RDTSCP; UD2
    ExecutorState& s = process->state();
    s.tscOffset = 0x1234'5678'9abc'def0;
    s.tscAux = 77;
    for (unsigned at : {0u, 8u}) {
      s.gpr[1] = 0x0101'0101'0101'0101;
      std::uint64_t entry = translate(at), before = scale(__builtin_ia32_rdtsc()) + s.tscOffset;
      run(entry);
      std::uint64_t after = scale(__builtin_ia32_rdtsc()) + s.tscOffset, read = s.gpr[2] << 32 | s.gpr[0];
      EXPECT_EQ((s.gpr[2] | s.gpr[0]) >> 32, 0u);
      EXPECT_GE(read - before, 0u);
      EXPECT_LE(read - before, after - before) << guest << " " << host;
      EXPECT_EQ(s.gpr[1], at == 0 ? 0x0101'0101'0101'0101u : 77u);
    }
  }
}

TEST_F(ExecutorCodeTest, EveryHostInstructionHasAPreciseState) {
  // MOV RAX, [RIP...]; CALL; at its target RET: stepped through, each place must give the guest's registers or say that
  // an instruction is half done, and those are few.
  put(0, {0x48, 0x8b, 0x05, 0xf9, 0x1f, 0, 0, 0xe8, 0xf4, 0, 0, 0});
  put(12, {0x0f, 0x0b});
  put(0x100, {0xc3});
  std::uint64_t host = translate(0);
  std::uint32_t link = 0;
  std::uint64_t target = translate(0x100);
  code->followFrom(link);
  code->enterTarget(kCode + 12, translate(12), true);
  ASSERT_NE(target, 0u);
  run(host);
  ExecutorState& s = process->state();
  ASSERT_EQ(s.reason, EXECUTOR_REASON_STEP + 0u);
  ASSERT_EQ(s.exitRip, kCode + 12);
  // Again, by the trap flag: a fault gives the first stop.
  s.gpr[0] = 0;
  s.gpr[4] = kStack + 2048;
  s.hostPc = host;
  process->ask({kData, kPageSize, ExecutorCommand::kNothing, 0});
  s.gsBase = process->base();
  ASSERT_TRUE(process->run());
  ASSERT_EQ(s.signal, SIGSEGV + 0u);
  process->ask({kData, kPageSize, 0, PROT_READ});
  unsigned half = 0, whole = 0;
  std::uint64_t last = 0;
  s.flags |= 0x100;
  while (last != kCode + 12) {  // what follows is on its way out
    ASSERT_TRUE(process->run());
    Place place{};
    ASSERT_TRUE(s.reason == EXECUTOR_REASON_SIGNAL && code->locate(s.hostPc, place));
    last = place.rip;
    if (place.kind == Place::Kind::between) {
      ++half;
      continue;
    }
    ++whole;
    std::uint64_t rcx = place.kind == Place::Kind::restore && place.reg == 1 ? s.spill[0] : s.gpr[1];
    std::uint64_t rdx = s.gpr[2];
    if (place.kind == Place::Kind::restore3) {
      rcx = s.spill[0];
      rdx = s.spill[1];
    }
    EXPECT_EQ(rcx, 0x0101'0101'0101'0101u);
    EXPECT_EQ(rdx, 0x0202'0202'0202'0202u);
    EXPECT_EQ(s.gpr[4], place.rip == kCode + 0x100 ? kStack + 2040 : kStack + 2048);
  }
  EXPECT_GE(whole, 15u);
  EXPECT_LE(half, 2u);
}

/// A kick inside an instruction lets the executor step to its end, while other vCPUs take it for stopped and may guard
/// a page: a guest's store must not be among what is stepped over, or nobody would notice it.
TEST_F(ExecutorCodeTest, WhatIsSteppedOverStoresNothingOfTheGuests) {
  // Of each kind that is more than one host instruction; before each comes whatever.
  const std::vector<std::vector<std::uint8_t>> kinds = {
      {0x0f, 0x31},                    // RDTSC
      {0x0f, 0x01, 0xf9},              // RDTSCP
      {0xe2, 0x10},                    // LOOP
      {0xe3, 0x10},                    // JRCXZ
      {0x67, 0xe3, 0x10},              // JECXZ
      {0xe8, 0x40, 0, 0, 0},           // CALL
      {0xff, 0xd0},                    // CALL RAX
      {0xff, 0x14, 0xcb},              // CALL [RBX + RCX * 8]
      {0xff, 0x15, 0x00, 0x10, 0, 0},  // CALL [RIP + ...]
      {0xff, 0xe1},                    // JMP RCX
      {0xff, 0x64, 0x24, 0x08},        // JMP [RSP + 8]
      {0xc3},                          // RET
      {0xc2, 0x08, 0},                 // RET 8
  };
  std::vector<std::pair<std::uint64_t, std::uint64_t>> blocks;
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    auto at = static_cast<unsigned>(64 * kind);
    const std::uint8_t before[] = {0x48, 0x89, 0x03, 0x01, 0x05,
                                   0,    0x10, 0,    0};  // MOV [RBX], RAX; ADD [RIP + ...], EAX
    std::copy(std::begin(before), std::end(before), page + at);
    std::copy(kinds[kind].begin(), kinds[kind].end(), page + at + sizeof before);
    std::uint8_t* behind = page + at + sizeof before + kinds[kind].size();
    behind[0] = 0x0f;
    behind[1] = 0x0b;
    std::uint64_t host = translate(at);
    ASSERT_NE(host, 0u);
    blocks.emplace_back(host, host + 16);
    if (kind != 0) blocks[kind - 1].second = host;
  }
  put(64 * 20, {0x0f, 0x0b});
  blocks.back().second = translate(64 * 20);
  std::uint64_t first = process->base() + EXECUTOR_STATE;
  unsigned stepped = 0;
  for (auto [host, end] : blocks) {
    x86::Instruction i{};
    for (; host < end; host += i.length) {
      const std::uint8_t* bytesThere = process->code() + (host - process->codeAddress());
      bool isPadding =
          end - host < 16 && std::all_of(bytesThere, bytesThere + (end - host), [](auto b) { return b == 0; });
      if (isPadding) break;
      ASSERT_EQ(x86::decode(bytesThere, 15, x86::CodeSize::bits64, i), x86::DecodeStatus::ok);
      Place place{};
      ASSERT_TRUE(code->locate(host, place));
      if (place.kind != Place::Kind::between) continue;
      ++stepped;
      bool isState = i.memory && i.ripRelative &&
                     host + i.length + static_cast<std::uint64_t>(i.displacement) - first < EXECUTOR_STATE_BYTES;
      bool stores = i.memory && x86::memoryOperand(i).write;
      EXPECT_TRUE(!stores || isState) << i.info->mnemonic << " at " << host - blocks.front().first;
      EXPECT_EQ(i.info->attributes & x86::attribute::stackAccess, 0) << i.info->mnemonic;
    }
  }
  EXPECT_GT(stepped, kinds.size());
}

}  // namespace
}  // namespace lodge::translate
