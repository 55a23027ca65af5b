// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_native.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "base/units.h"

namespace lodge::translate {
namespace {

class ExecutorNativeTest : public testing::Test {
 protected:
  void SetUp() override { std::memset(pages, 0x90, sizeof pages); }
  /// In the page that is looked at, or from -4096 on before it, and behind it.
  void put(int offset, std::initializer_list<std::uint8_t> code) {
    std::copy(code.begin(), code.end(), pages + kPageSize + offset);
  }
  bool isClean(bool timeStamps = true) const {
    return runsAsItIs(pages, pages + kPageSize, pages + 2 * kPageSize, timeStamps);
  }

  std::uint8_t pages[3 * kPageSize];
};

TEST_F(ExecutorNativeTest, FindsWhatAnswersForTheHost) {
  EXPECT_TRUE(isClean());
  const std::initializer_list<std::uint8_t> sensed[] = {{0x0f, 0xa2},              // CPUID
                                                        {0x0f, 0x01, 0xf9},        // RDTSCP
                                                        {0xf3, 0x0f, 0xc7, 0xf8},  // RDPID EAX
                                                        {0x0f, 0x03, 0xc1},        // LSL
                                                        {0x0f, 0x01, 0xc1},        // VMCALL
                                                        {0x66, 0x0f, 0x00, 0xc8},  // STR
                                                        {0xcd, 0x80}};             // INT 80
  for (const auto& code : sensed) {
    SetUp();
    put(100, code);
    EXPECT_FALSE(isClean()) << static_cast<unsigned>(*(code.begin() + 1));
  }
}

TEST_F(ExecutorNativeTest, TimeStampsDependOnTheOffset) {
  put(8, {0x0f, 0x31});
  EXPECT_TRUE(isClean(true));
  EXPECT_FALSE(isClean(false));
}

TEST_F(ExecutorNativeTest, NumbersAreNotInstructions) {
  put(100, {0x48, 0x8d, 0x05, 0x6d, 0x59, 0x0f, 0x00});              // LEA RAX, [RIP + 0xf596d]
  put(200, {0xb8, 0x0f, 0xa2, 0x00, 0x00});                          // MOV EAX, 0xa20f
  put(300, {0x0f, 0x01, 0xd6, 0x0f, 0x01, 0xd0, 0x0f, 0xc7, 0xf8});  // XTEST; XGETBV; RDSEED
  put(2, {0x6d, 0x59, 0x0f, 0x00, 0xc8, 0x00, 0x00, 0x00});          // and ENTER
  put(-1, {0x48, 0x8d, 0x05});
  EXPECT_TRUE(isClean());
  // Nobody knows what is before it: then it may be one.
  EXPECT_FALSE(runsAsItIs(nullptr, pages + kPageSize, pages + 2 * kPageSize, true));
}

TEST_F(ExecutorNativeTest, AnInstructionOnTwoPagesIsBoths) {
  put(kPageSize - 1, {0x0f, 0xa2});
  EXPECT_FALSE(isClean());
  SetUp();
  put(-1, {0x0f, 0xa2});
  EXPECT_FALSE(isClean());
  // It cannot run before the next page is there, and is found then.
  put(-1, {0x90, 0x90});
  put(kPageSize - 1, {0x0f});
  EXPECT_TRUE(runsAsItIs(pages, pages + kPageSize, nullptr, true));
}

TEST_F(ExecutorNativeTest, AnswersAreKeptByWhatThePagesHold) {
  PageVerdicts verdicts;
  auto ask = [&](bool timeStamps, bool around = true) {
    return verdicts.runsAsItIs(around ? pages : nullptr, pages + kPageSize, around ? pages + 2 * kPageSize : nullptr,
                               timeStamps);
  };
  for (int round = 0; round < 2; ++round) {
    SetUp();
    EXPECT_TRUE(ask(true));
    put(100, {0x0f, 0xa2});  // CPUID
    EXPECT_FALSE(ask(true));
    SetUp();
    put(100, {0x0f, 0x31});  // RDTSC
    EXPECT_TRUE(ask(true));
    EXPECT_FALSE(ask(false));
    SetUp();
    put(kPageSize - 1, {0x0f, 0xa2});  // ends in the next page
    EXPECT_FALSE(ask(true));
    EXPECT_TRUE(ask(true, false));
    SetUp();
    put(-1, {0x0f, 0xa2});  // begins in the one before
    EXPECT_FALSE(ask(true));
    EXPECT_TRUE(ask(true, false));
  }
}

}  // namespace
}  // namespace lodge::translate
