// SPDX-License-Identifier: Apache-2.0
#include "x86/smm.h"

#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kBase = 0x30000, kArea = kBase + 0x8000;

struct Smm : testing::Test {
  Smm() { s.smbase = kBase; }
  void smi() {
    m->raise(event::smi);
    running = handleEvents(*m);
  }
  TestMachine m;
  CpuState& s = m.state();
  bool running = true;
};

TEST_F(Smm, EntryLeavesTheStateOfTheManual) {
  m.long64(0);
  s.rip = 0x1234'5678;
  s.gpr[rax] = 0x1122'3344'5566'7788;
  s.gpr[r15] = 15;
  s.rflags = 0x246;
  std::uint64_t cr0Before = s.cr0, cr3Before = s.cr3;
  smi();
  EXPECT_TRUE(running);
  EXPECT_EQ(s.smm, 1);
  EXPECT_EQ(s.rip, 0x8000u);
  EXPECT_EQ(s.segment[cs].base, kBase);
  EXPECT_EQ(s.segment[cs].selector, 0x3000u);
  EXPECT_EQ(s.segment[ds].limit, 0xffff'ffffu);
  EXPECT_EQ(s.rflags, 2u);
  EXPECT_EQ(s.cr0 & (cr0::pe | cr0::pg | cr0::em | cr0::ts), 0u);
  EXPECT_EQ(s.cr4, 0u);
  EXPECT_EQ(s.efer, 0u);
  EXPECT_EQ(s.nmiBlocked, 1);
  EXPECT_EQ(m.load<std::uint64_t>(kArea + 0x7ff8), 0x1122'3344'5566'7788u);
  EXPECT_EQ(m.load<std::uint64_t>(kArea + 0x7f80), 15u);
  EXPECT_EQ(m.load<std::uint64_t>(kArea + 0x7f78), 0x1234'5678u);
  EXPECT_EQ(m.load<std::uint64_t>(kArea + 0x7f58), cr0Before);
  EXPECT_EQ(m.load<std::uint64_t>(kArea + 0x7f50), cr3Before);
  EXPECT_EQ(m.load<std::uint32_t>(kArea + 0x7efc), 0x20064u);
  EXPECT_EQ(m.load<std::uint32_t>(kArea + 0x7f00), kBase);
}

TEST_F(Smm, RsmBringsEverythingBack) {
  for (int mode = 0; mode < 4; ++mode) {
    switch (mode) {
      case 0:
        m.real();
        break;
      case 1:
        m.protected32(3);
        break;
      case 2:
        m.long64(0);
        break;
      default:
        m.long64(3);
    }
    s.gpr[rsi] = 0xdead'beef;
    s.rflags = 0x202;
    CpuState before = s;
    smi();
    s.gpr[rsi] = 0;
    s.cr2 = before.cr2;
    ASSERT_TRUE(resumeFromSmm(*m)) << mode;
    EXPECT_EQ(s.smm, 0);
    for (unsigned n = 0; n < 16; ++n) EXPECT_EQ(s.gpr[n], before.gpr[n]);
    EXPECT_EQ(s.rip, before.rip);
    EXPECT_EQ(s.rflags, before.rflags);
    EXPECT_EQ(s.cr0, before.cr0) << mode;
    EXPECT_EQ(s.cr3, before.cr3);
    EXPECT_EQ(s.cr4, before.cr4);
    EXPECT_EQ(s.efer, before.efer);
    EXPECT_EQ(s.cpl, before.cpl) << mode;
    EXPECT_EQ(s.nmiBlocked, before.nmiBlocked);
    for (unsigned n = 0; n < kSegmentCount; ++n) {
      EXPECT_EQ(s.segment[n].base, before.segment[n].base);
      EXPECT_EQ(s.segment[n].limit, before.segment[n].limit);
      EXPECT_EQ(s.segment[n].selector, before.segment[n].selector);
      EXPECT_EQ(s.segment[n].attributes & 0xf0ff, before.segment[n].attributes & 0xf0ff);
    }
    EXPECT_EQ(s.gdtr.base, before.gdtr.base);
    EXPECT_EQ(s.idtr.limit, before.idtr.limit);
  }
}

TEST_F(Smm, RsmOutsideIsUndefined) {
  m.long64(0);
  EXPECT_FALSE(resumeFromSmm(*m));
  EXPECT_EQ(m->exception.vector, static_cast<std::uint8_t>(Vector::ud));
}

TEST_F(Smm, TheBaseMovesWithTheSaveArea) {
  m.real();
  smi();
  m.store<std::uint32_t>(kArea + 0x7f00, 0x40000);
  ASSERT_TRUE(resumeFromSmm(*m));
  EXPECT_EQ(s.smbase, 0x40000u);
  smi();
  EXPECT_EQ(s.segment[cs].base, 0x40000u);
}

TEST_F(Smm, AHaltedCpuHaltsAgainUnlessTheHandlerSaysOtherwise) {
  m.real();
  s.activity = Activity::halted;
  smi();
  EXPECT_TRUE(running);
  EXPECT_EQ(m.load<std::uint8_t>(kArea + 0x7ec9), 1);
  ASSERT_TRUE(resumeFromSmm(*m));
  EXPECT_EQ(s.activity, Activity::halted);
  smi();
  m.store<std::uint8_t>(kArea + 0x7ec9, 0);
  ASSERT_TRUE(resumeFromSmm(*m));
  EXPECT_EQ(s.activity, Activity::running);
}

TEST_F(Smm, FurtherInterruptsWaitForItsEnd) {
  m.real();
  smi();
  m->raise(event::smi | event::nmi | event::init);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m->events.load(), 0u);
  EXPECT_EQ(s.rip, 0x8000u);
  ASSERT_TRUE(resumeFromSmm(*m));
  EXPECT_EQ(m->events.load(), event::smi | event::nmi | event::init);
}

TEST_F(Smm, ACpuThatIsStartedMeanwhileStartsAfterwards) {
  m->index = 1;  // not the bootstrap processor
  m.real();
  smi();
  m->sipiVector = 0x12;
  m->raise(event::init);
  EXPECT_TRUE(handleEvents(*m));
  m->raise(event::sipi);
  EXPECT_TRUE(handleEvents(*m));
  ASSERT_TRUE(resumeFromSmm(*m));
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.activity, Activity::running);
  EXPECT_EQ(s.segment[cs].base, 0x12000u);
  EXPECT_EQ(s.rip, 0u);
}

TEST_F(Smm, ItsMemoryIsReachedInItsModeAlone) {
  m.real();
  std::uint64_t tseg = m.memory->lowSize() - 1_MiB;
  m.store<std::uint32_t>(tseg, 0x1234);
  m.memory->setSmram(Gpa{tseg}, 1_MiB);
  EXPECT_EQ(m->offsetOf(Gpa{tseg}), GuestMemory::kNoOffset);
  EXPECT_EQ(m->writableOffsetOf(Gpa{tseg + 4}), GuestMemory::kNoOffset);
  EXPECT_NE(m->offsetOf(Gpa{tseg - 1}), GuestMemory::kNoOffset);
  EXPECT_EQ(m.memory->span(Gpa{tseg - 16}, 32), nullptr);
  EXPECT_NE(m.memory->span(Gpa{tseg - 16}, 16), nullptr);
  smi();
  EXPECT_EQ(m->offsetOf(Gpa{tseg}), tseg);
  EXPECT_EQ(m->writableOffsetOf(Gpa{tseg}), tseg);
  m.memory->setSmram(Gpa{0}, 0);
  EXPECT_EQ(m.load<std::uint32_t>(tseg), 0x1234u);
}

TEST_F(Smm, WhateverTheSaveAreaHoldsTheStateIsOneThatExists) {
  std::uint64_t seed = 1;
  for (int round = 0; round < 200; ++round) {
    m.long64(0);
    smi();
    for (unsigned at = 0x7e00; at < 0x8000; at += 8) {
      seed = seed * 6364136223846793005 + 1442695040888963407;
      if ((seed >> 60) < 8) m.store<std::uint64_t>(kArea + at, seed ^ seed >> 29);
    }
    m.store<std::uint32_t>(kArea + 0x7f00, kBase);
    ASSERT_TRUE(resumeFromSmm(*m));
    if (m->longMode()) {
      EXPECT_NE(s.cr0 & cr0::pg, 0u);
      EXPECT_NE(s.cr4 & cr4::pae, 0u);
      EXPECT_EQ(s.rflags & flag::vm, 0u);
    } else {
      EXPECT_FALSE(s.segment[cs].longMode());
    }
    for (const SegmentRegister& segment : s.segment) {
      EXPECT_EQ(segment.base, static_cast<std::uint64_t>(static_cast<std::int64_t>(segment.base << 16) >> 16));
    }
    s.smm = 0;
    s.activity = Activity::running;
    m->events = 0;
    m->deferredEvents = 0;
  }
}

}  // namespace
}  // namespace lodge::x86
