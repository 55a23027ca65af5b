// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_process.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/memory_file.h"
#include "base/units.h"

namespace lodge::translate {
namespace {

constexpr std::uint64_t kPage = 0x7f12'3456'7000;

class ExecutorProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!ExecutorProcess::isPossible()) GTEST_SKIP() << "the host has no FSGSBASE";
    ram = makeMemoryFile("test-ram");
    ASSERT_EQ(::ftruncate(ram.get(), 1_MiB), 0);
    bytes = static_cast<std::uint8_t*>(::mmap(nullptr, 1_MiB, PROT_READ | PROT_WRITE, MAP_SHARED, ram.get(), 0));
    process = ExecutorProcess::start(ram.get());
    ASSERT_TRUE(process);
  }
  void TearDown() override {
    if (bytes) ::munmap(bytes, 1_MiB);
  }
  /// Code that runs next; a jump to executorExit follows it.
  void put(std::vector<std::uint8_t> code) {
    std::uint64_t at = ExecutorProcess::stubBytes();
    code.push_back(0xe9);
    std::memcpy(process->code() + at, code.data(), code.size());
    std::uint64_t next = process->codeAddress() + at + code.size() + 4;
    storeLe(process->code() + at + code.size(), static_cast<std::uint32_t>(process->stubAddress(executorExit) - next));
    process->state().hostPc = process->codeAddress() + at;
    process->state().resume = static_cast<std::uint32_t>(ExecutorResume::enter);
    process->state().flags = 2;
    process->state().xsave[24] = std::byte{0x80};
    process->state().xsave[25] = std::byte{0x1f};
  }

  UniqueFd ram;
  std::uint8_t* bytes = nullptr;
  std::unique_ptr<ExecutorProcess> process;
};

TEST_F(ExecutorProcessTest, RunsCodeWithAllRegisters) {
  ExecutorState& s = process->state();
  for (unsigned r = 0; r < 16; ++r) s.gpr[r] = 0x1111111111111111u * r;
  s.reason = 0;
  put({0x48, 0x01, 0xd8, 0xf9});  // ADD RAX, RBX; STC
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.gpr[0], 0x3333333333333333u);
  EXPECT_EQ(s.flags & 1, 1u);
  for (unsigned r = 1; r < 16; ++r) EXPECT_EQ(s.gpr[r], 0x1111111111111111u * r);
}

TEST_F(ExecutorProcessTest, FaultsAndGoesOnWhenThePageIsThere) {
  ExecutorState& s = process->state();
  s.gpr[3] = kPage + 8;
  bytes[5 * kPageSize + 8] = 42;
  put({0x48, 0x8b, 0x03, 0x48, 0x89, 0x43, 0x08});  // MOV RAX, [RBX]; MOV [RBX + 8], RAX
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
  EXPECT_EQ(s.signal, SIGSEGV + 0u);
  EXPECT_EQ(s.faultAddress, kPage + 8);
  EXPECT_EQ(s.errorCode & 2, 0u);
  process->ask({kPage, kPageSize, 5 * kPageSize, PROT_READ});
  s.resume = static_cast<std::uint32_t>(ExecutorResume::again);
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.failed, 0u);
  EXPECT_EQ(s.signal, SIGSEGV + 0u);
  EXPECT_EQ(s.faultAddress, kPage + 16);
  EXPECT_EQ(s.errorCode & 2, 2u);
  EXPECT_EQ(s.gpr[0], 42u);
  process->ask({kPage, kPageSize, 5 * kPageSize, PROT_READ | PROT_WRITE});
  ASSERT_TRUE(process->run());
  EXPECT_EQ(bytes[5 * kPageSize + 16], 42);
}

TEST_F(ExecutorProcessTest, AKickStopsALoop) {
  ExecutorState& s = process->state();
  put({0xeb, 0xfe});
  std::uint64_t at = s.hostPc;
  process->kick();  // before it began, perhaps
  ASSERT_TRUE(process->run());
  if (s.reason == EXECUTOR_REASON_SIGNAL) EXPECT_EQ(s.hostPc, at);
  EXPECT_TRUE(s.reason == EXECUTOR_REASON_SIGNAL || s.reason == EXECUTOR_REASON_ABORTED);
}

TEST_F(ExecutorProcessTest, HasNothingOfTheMachine) {
  ExecutorState& s = process->state();
  s.gpr[3] = reinterpret_cast<std::uint64_t>(bytes);
  put({0x48, 0x8b, 0x03});
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGSEGV + 0u);
  EXPECT_EQ(s.faultAddress, reinterpret_cast<std::uint64_t>(bytes));
}

TEST_F(ExecutorProcessTest, ASystemCallEndsIt) {
  put({0xb8, 39, 0, 0, 0, 0x0f, 0x05});  // getpid
  EXPECT_FALSE(process->run());
}

TEST_F(ExecutorProcessTest, StepsOneInstruction) {
  ExecutorState& s = process->state();
  s.gpr[3] = kPage;
  put({0x48, 0x8b, 0x03, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc0});  // MOV RAX, [RBX]; INC RAX; INC RAX
  ASSERT_TRUE(process->run());
  process->ask({kPage, kPageSize, 0, PROT_READ});
  s.resume = static_cast<std::uint32_t>(ExecutorResume::step);
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGTRAP + 0u);
  EXPECT_EQ(s.gpr[0], 0u);
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.gpr[0], 1u);
}

}  // namespace
}  // namespace lodge::translate
