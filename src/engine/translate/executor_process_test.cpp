// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_process.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/memory_file.h"
#include "base/units.h"

namespace lodge::translate {
namespace {

constexpr std::uint64_t kPage = 0x7f12'3456'7000, kTrapFlag = 1 << 8;

class ExecutorProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!ExecutorProcess::isPossible()) GTEST_SKIP() << "the host has no FSGSBASE";
    TearDown();
    ram = makeMemoryFile("test-ram");
    ASSERT_EQ(::ftruncate(ram.get(), 1_MiB), 0);
    bytes = static_cast<std::uint8_t*>(::mmap(nullptr, 1_MiB, PROT_READ | PROT_WRITE, MAP_SHARED, ram.get(), 0));
    process = ExecutorProcess::start(ram.get());
    ASSERT_TRUE(process);
  }
  void TearDown() override {
    if (bytes) ::munmap(bytes, 1_MiB);
    bytes = nullptr;
  }
  /// Code that runs next; a jump to executorExit follows it.
  void put(std::vector<std::uint8_t> code) {
    std::uint64_t at = ExecutorProcess::stubBytes();
    code.push_back(0xe9);
    std::memcpy(process->code() + at, code.data(), code.size());
    std::uint64_t next = process->codeAddress() + at + code.size() + 4;
    storeLe(process->code() + at + code.size(), static_cast<std::uint32_t>(process->stubAddress(executorExit) - next));
    process->state().hostPc = process->codeAddress() + at;
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

/// On a host with too much to do, while other threads interrupt the one that waits.
TEST_F(ExecutorProcessTest, OneThatGetsNoProcessorIsWaitedFor) {
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) {};
  ::sigaction(SIGUSR2, &action, &before);
  put({0xeb, 0xfe});
  ::kill(process->pid(), SIGSTOP);
  volatile std::uint32_t wantsStop = 1;
  auto waiting = static_cast<pid_t>(::gettid());
  std::thread others([&] {
    constexpr unsigned kSignals = 60'000;
    for (unsigned n = 0; n < kSignals; ++n) {
      ::syscall(SYS_tgkill, ::getpid(), waiting, SIGUSR2);
      if (n % 4 == 0) std::this_thread::yield();
    }
    ::kill(process->pid(), SIGCONT);
  });
  bool lives = process->run(wantsStop);
  others.join();
  ::sigaction(SIGUSR2, &before, nullptr);
  EXPECT_TRUE(lives);
}

TEST_F(ExecutorProcessTest, OneThatBlocksKicksIsEnded) {
  ExecutorState& s = process->state();
  std::memset(bytes, 0xff, 8);
  process->ask({kPage, 2 * kPageSize, 0, PROT_READ | PROT_WRITE});
  put({0x90});
  ASSERT_TRUE(process->run());
  // The stub's own system call, with another mask; it leads there again and again.
  s.hostPc = process->stubAddress(executorUnblocked) - 2;
  s.gpr[0] = SYS_rt_sigprocmask;
  s.gpr[7] = SIG_SETMASK;
  s.gpr[6] = kPage;
  s.gpr[2] = 0;
  s.gpr[10] = 8;
  s.gpr[4] = kPage + 2 * kPageSize;
  volatile std::uint32_t wantsStop = 0;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // either way it is ended
    wantsStop = 1;
  });
  EXPECT_FALSE(process->run(wantsStop));
  EXPECT_NE(s.kicked, 1u);
  later.join();
}

TEST_F(ExecutorProcessTest, HasNothingOfTheMachine) {
  ExecutorState& s = process->state();
  s.gpr[3] = reinterpret_cast<std::uint64_t>(bytes);
  put({0x48, 0x8b, 0x03});
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGSEGV + 0u);
  EXPECT_EQ(s.faultAddress, reinterpret_cast<std::uint64_t>(bytes));
}

TEST_F(ExecutorProcessTest, ASystemCallIsTheMachines) {
  ExecutorState& s = process->state();
  put({0xb8, 39, 0, 0, 0, 0x0f, 0x05});  // getpid
  std::uint64_t at = s.hostPc;
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGSYS + 0u);
  EXPECT_EQ(s.hostPc, at + 7);
  EXPECT_EQ(s.gpr[0], 39u);
  process->code()[at + 5 - process->codeAddress()] = 0xcd;  // INT 80: getppid
  process->code()[at + 6 - process->codeAddress()] = 0x80;
  s.hostPc = at;
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGSYS + 0u);
}

/// What a guest program does that has found the stub.
TEST_F(ExecutorProcessTest, TheStubsSystemCallsAreOfNoUse) {
  struct {
    const std::uint8_t* behind;
    std::uint64_t number;
  } calls[] = {{executorMapped, 9}, {executorUnmapped, 11}, {executorMapped, 39}, {executorStackSet, 59}};
  for (auto& call : calls) {
    ExecutorState& s = process->state();
    process->ask({kPage, kPageSize, 5 * kPageSize, PROT_READ | PROT_WRITE});
    put({0x90});
    ASSERT_TRUE(process->run());  // the cookie was there, and is gone
    EXPECT_EQ(s.cookie, 0u);
    s.hostPc = process->stubAddress(call.behind) - 2;
    s.gpr[0] = call.number;
    s.gpr[7] = kPage;
    s.gpr[6] = kPageSize;
    s.gpr[2] = 3;
    s.gpr[10] = EXECUTOR_MAP_FLAGS;
    s.gpr[8] = 3;
    EXPECT_FALSE(process->run());
    SetUp();  // another one
  }
}

TEST_F(ExecutorProcessTest, CodeRunsWhereTheGuestHasIt) {
  ExecutorState& s = process->state();
  const std::uint8_t code[] = {0x65, 0x48, 0x8b, 0x1c, 0x25, 0x08, 0, 0, 0, 0x0f, 0x05};  // MOV RBX, GS:[8]; SYSCALL
  std::memcpy(bytes + 5 * kPageSize, code, sizeof code);
  storeLe(bytes + 6 * kPageSize + 8, std::uint64_t{0x1234});
  put({0x90});
  process->ask({kPage, kPageSize, 5 * kPageSize, PROT_READ | PROT_EXEC});
  process->ask({kPage + kPageSize, kPageSize, 6 * kPageSize, PROT_READ});
  s.hostPc = kPage;
  s.gsBase = kPage + kPageSize;
  s.gpr[0] = 60;
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGSYS + 0u);
  EXPECT_EQ(s.hostPc, kPage + sizeof code);
  EXPECT_EQ(s.gpr[3], 0x1234u);
  EXPECT_EQ(s.gsBase, kPage + kPageSize);
}

TEST_F(ExecutorProcessTest, TakesManyCommands) {
  ExecutorState& s = process->state();
  for (unsigned round = 0; round < 20; ++round) {
    for (std::uint64_t n = 0; n < 40; ++n) {
      process->ask({kPage + n * kPageSize, kPageSize, n * kPageSize, n % 3 == 0 ? 5u : 3u});
      if ((n + round) % 2 == 0) process->ask({kPage + n * kPageSize, kPageSize, ExecutorCommand::kNothing, 0});
    }
    put({0x90});
    ASSERT_TRUE(process->run()) << round;
    EXPECT_EQ(s.failed, 0u);
  }
}

/// What could not be hidden would be seen.
TEST_F(ExecutorProcessTest, NothingRunsAfterACommandThatFailed) {
  ExecutorState& s = process->state();
  for (bool fails : {true, true, false}) {
    s.gpr[0] = 1;
    if (fails) process->ask({kPage + 1, kPageSize, ExecutorCommand::kNothing, 0});
    process->ask({kPage, kPageSize, fails ? 0 : kPageSize, PROT_READ});
    put({0x48, 0xff, 0xc0});  // INC RAX
    s.reason = EXECUTOR_REASON_STEP;
    ASSERT_TRUE(process->run());
    EXPECT_EQ(s.failed, fails ? 1u : 0u);
    EXPECT_EQ(s.gpr[0], fails ? 1u : 2u);
    EXPECT_EQ(s.reason, fails ? EXECUTOR_REASON_ABORTED + 0u : EXECUTOR_REASON_STEP + 0u);
    EXPECT_EQ(process->asked(), 0u);
    EXPECT_TRUE(process->hasAnswered());
  }
}

TEST_F(ExecutorProcessTest, OneThatWasDeadBeforeHasDoneNothing) {
  put({0x90});
  ASSERT_TRUE(process->run());
  ::kill(process->pid(), SIGKILL);
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(process->pid()), &info, WEXITED | WNOWAIT | __WALL) != 0 && errno == EINTR)
    continue;
  EXPECT_FALSE(process->run());
  EXPECT_FALSE(process->hasAnswered());
}

TEST_F(ExecutorProcessTest, NeighboursAreOneCommand) {
  ExecutorState& s = process->state();
  for (unsigned n = 0; n < 5; ++n) bytes[(4 + n) * kPageSize] = static_cast<std::uint8_t>(10 + n);
  for (unsigned n = 0; n < 3; ++n) process->ask({kPage + n * kPageSize, kPageSize, (4 + n) * kPageSize, PROT_READ});
  EXPECT_EQ(process->asked(), 1u);
  process->ask({kPage + 3 * kPageSize, kPageSize, 8 * kPageSize, PROT_READ});               // not next to it in RAM
  process->ask({kPage + 4 * kPageSize, kPageSize, 9 * kPageSize, PROT_READ | PROT_WRITE});  // another protection
  EXPECT_EQ(process->asked(), 3u);
  std::uint64_t sum = 0;
  for (unsigned n : {0u, 1u, 2u, 3u}) {
    s.gpr[3] = kPage + n * kPageSize;
    put({0x0f, 0xb6, 0x03});  // MOVZX EAX, [RBX]
    ASSERT_TRUE(process->run());
    ASSERT_NE(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
    sum = 100 * sum + s.gpr[0];
  }
  EXPECT_EQ(sum, 10'11'12'14u);
  process->ask({kPage, kPageSize, ExecutorCommand::kNothing, 0});
  process->ask({kPage + kPageSize, kPageSize, ExecutorCommand::kNothing, 0});
  EXPECT_EQ(process->asked(), 1u);
  s.gpr[3] = kPage + kPageSize;
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
  s.gpr[3] = kPage + 2 * kPageSize;
  s.reason = 0;
  put({0x0f, 0xb6, 0x03});
  ASSERT_TRUE(process->run());
  EXPECT_NE(s.reason, EXECUTOR_REASON_SIGNAL + 0u);
}

TEST_F(ExecutorProcessTest, StepsOneInstruction) {
  ExecutorState& s = process->state();
  s.gpr[3] = kPage;
  put({0x48, 0x8b, 0x03, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc0});  // MOV RAX, [RBX]; INC RAX; INC RAX
  ASSERT_TRUE(process->run());
  process->ask({kPage, kPageSize, 0, PROT_READ});
  s.flags |= kTrapFlag;
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.signal, SIGTRAP + 0u);
  EXPECT_EQ(s.gpr[0], 0u);
  EXPECT_NE(s.flags & kTrapFlag, 0u);
  ASSERT_TRUE(process->run());
  EXPECT_EQ(s.gpr[0], 1u);
}

}  // namespace
}  // namespace lodge::translate
