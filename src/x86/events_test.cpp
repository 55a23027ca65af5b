// SPDX-License-Identifier: Apache-2.0
#include "x86/events.h"

#include <gtest/gtest.h>

#include <thread>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Events : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  FakeApic& apic = m.environment.localApic;
  void SetUp() override {
    m.long64(0);
    s.rflags |= flag::if_;
  }
  void interrupt(int vector) {
    apic.pendingVectors.push_back(vector);
    m->raise(event::interrupt);
  }
};

TEST_F(Events, anInterruptIsDelivered) {
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0041u);
  EXPECT_EQ(m->events.load(), 0u);
  EXPECT_EQ(m->deferredEvents, 0u);
}

TEST_F(Events, aMaskedInterruptWaitsAside) {
  s.rflags &= ~flag::if_;
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, at::code);
  EXPECT_EQ(m->events.load(), 0u) << "nothing to spin on";
  ASSERT_TRUE(setInterruptFlag(*m, true));
  EXPECT_EQ(m->events.load(), event::interrupt);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, at::code) << "the shadow of STI";
  afterInstruction(*m, s.rflags, s.interruptShadow);
  EXPECT_EQ(s.interruptShadow, 0);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0041u);
}

TEST_F(Events, aSpuriousInterruptEventDoesNothing) {
  m->raise(event::interrupt);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, at::code);
  s.activity = Activity::halted;
  m->raise(event::interrupt);
  EXPECT_FALSE(handleEvents(*m));
  EXPECT_EQ(s.activity, Activity::halted);
  EXPECT_EQ(m->events.load(), 0u);
}

TEST_F(Events, theNextInterruptIsLookedForAtTheReturn) {
  apic.pendingVectors = {0x31, 0x41};
  m->raise(event::interrupt);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0041u);
  EXPECT_EQ(m->events.load(), 0u);
  ASSERT_TRUE(interruptReturn(*m, 8, 0));
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0031u);
}

TEST_F(Events, haltEndsWithWhatCanBeTaken) {
  s.activity = Activity::halted;
  s.rflags &= ~flag::if_;
  interrupt(0x41);
  EXPECT_FALSE(handleEvents(*m)) << "IF = 0";
  EXPECT_EQ(m->events.load(), 0u) << "so that waitForEvents sleeps";
  m->raise(event::nmi);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0002u);
  EXPECT_EQ(s.nmiBlocked, 1);
  s.activity = Activity::halted;
  m->raise(event::unhalt);
  EXPECT_TRUE(handleEvents(*m));
}

TEST_F(Events, aKickIsRememberedForTheNextHalt) {
  m->raise(event::unhalt);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m->events.load(), 0u);
  s.activity = Activity::halted;
  EXPECT_TRUE(handleEvents(*m));
  s.activity = Activity::halted;
  EXPECT_FALSE(handleEvents(*m)) << "once";
}

TEST_F(Events, nmisNest) {
  m->raise(event::nmi);
  EXPECT_TRUE(handleEvents(*m));
  m->raise(event::nmi);
  s.rip = 0x77;
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x77u) << "blocked until IRET";
  ASSERT_TRUE(interruptReturn(*m, 8, 0));
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0002u);
}

TEST_F(Events, nmiWaitsForTheStackSegmentsShadow) {
  s.interruptShadow = 2;
  m->raise(event::nmi);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, at::code);
  afterInstruction(*m, s.rflags, 2);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0x1'0002u);
}

TEST_F(Events, stopStaysSetAndHoldsTheCpu) {
  m->raise(event::stop);
  EXPECT_FALSE(handleEvents(*m));
  EXPECT_EQ(m->events.load(), event::stop);
  waitForEvents(*m);  // returns at once
}

TEST_F(Events, foreignBitsAreLeftAlone) {
  m->raise(event::quiesce | event::smi);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m->events.load(), event::quiesce);
}

TEST_F(Events, flushTlbIsDone) {
  m.listener = {};
  m->raise(event::flushTlb);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m.listener.everything, 1);
}

TEST_F(Events, startUp) {
  m->index = 1;
  m->raise(event::init);
  EXPECT_FALSE(handleEvents(*m));
  EXPECT_EQ(s.activity, Activity::waitForSipi);
  EXPECT_EQ(apic.resets, 1);
  interrupt(0x41);
  m->raise(event::nmi);
  EXPECT_FALSE(handleEvents(*m)) << "only a SIPI wakes it";
  EXPECT_EQ(m->events.load(), 0u);
  m->sipiVector = 0x9a;
  m->raise(event::sipi);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.segment[cs].selector, 0x9a00);
  EXPECT_EQ(s.segment[cs].base, 0x9a000u);
  EXPECT_EQ(s.rip, 0u);
  m->sipiVector = 0x10;
  m->raise(event::sipi);
  handleEvents(*m);
  EXPECT_NE(s.segment[cs].selector, 0x1000) << "a second SIPI finds it running";
}

TEST_F(Events, initAndSipiTogether) {
  m->index = 1;
  m->sipiVector = 0x9a;
  m->raise(event::sipi | event::init);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.segment[cs].selector, 0x9a00);
}

TEST_F(Events, initOfTheBootProcessorRestartsIt) {
  m->raise(event::init);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(s.rip, 0xfff0u);
  EXPECT_EQ(s.segment[cs].base, 0xffff'0000u);
}

TEST_F(Events, shutdownTakesNothingButInit) {
  s.activity = Activity::shutdown;
  interrupt(0x41);
  m->raise(event::nmi);
  EXPECT_FALSE(handleEvents(*m));
  EXPECT_EQ(m->events.load(), 0u);
  m->raise(event::init);
  EXPECT_TRUE(handleEvents(*m));
}

TEST_F(Events, aSleepingThreadIsWoken) {
  for (int round = 0; round < 200; ++round) {
    std::thread sleeper([&] { waitForEvents(*m); });
    if (round % 2 != 0) std::this_thread::yield();
    m->raise(event::interrupt);
    sleeper.join();
    m->events = 0;
  }
}

TEST_F(Events, aRunningThreadIsKickedOnce) {
  static int kicks;
  kicks = 0;
  m->kick = [](Cpu&) { ++kicks; };
  m->raise(event::nmi);
  m->raise(event::nmi);
  EXPECT_EQ(kicks, 1) << "the first kick is still on its way";
  m->raise(event::interrupt);
  EXPECT_EQ(kicks, 2);
}

// Paravirtual EOI.
constexpr std::uint64_t kFlag = 0x7'0000;
TEST_F(Events, theGuestMaySkipAnEoi) {
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, kFlag | 1));
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m.load<std::uint8_t>(kFlag) & 1, 0) << "the APIC does not allow it";
  apic.skippable = true;
  s.rflags |= flag::if_;
  interrupt(0x42);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m.load<std::uint8_t>(kFlag) & 1, 1);
  m.store<std::uint8_t>(kFlag, 0);  // the guest's EOI
  s.rflags |= flag::if_;
  apic.skippable = false;
  interrupt(0x43);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(apic.eois, 1);
  EXPECT_EQ(s.rip, 0x1'0043u);
}

TEST_F(Events, anOfferThatWasNotTakenIsWithdrawn) {
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, kFlag | 1));
  apic.skippable = true;
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  EXPECT_EQ(m.load<std::uint8_t>(kFlag) & 1, 1);
  interrupt(0x42);
  EXPECT_TRUE(handleEvents(*m));  // IF = 0
  EXPECT_EQ(apic.eois, 0);
  EXPECT_EQ(m.load<std::uint8_t>(kFlag) & 1, 0) << "the guest must use the register, which re-evaluates";
}

// As Linux does before it restarts: the handler ends after the switch-off, and skips its EOI if it finds the bit set.
TEST_F(Events, switchedOffInAHandlerTheOfferIsWithdrawn) {
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, kFlag | 1));
  apic.skippable = true;
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, 0));
  EXPECT_EQ(m.load<std::uint8_t>(kFlag) & 1, 0);
  EXPECT_EQ(apic.eois, 0);
}

TEST_F(Events, switchedOffAfterAHandlerTheSkippedEoiIsMadeUpFor) {
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, kFlag | 1));
  apic.skippable = true;
  interrupt(0x41);
  EXPECT_TRUE(handleEvents(*m));
  m.store<std::uint8_t>(kFlag, 0);
  ASSERT_TRUE(writeMsr(*m, 0x4b56'4d04, 0));
  EXPECT_EQ(apic.eois, 1);
}

}  // namespace
}  // namespace lodge::x86
