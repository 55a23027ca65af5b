// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/chips.h"

#include <gtest/gtest.h>

namespace lodge::kvm {
namespace {

kvm_pit_state2 given(const x86::PitRegisters& pit, bool silent = false) {
  kvm_pit_state2 out;
  toKvm(pit, silent, out);
  return out;
}

x86::PitRegisters runs(unsigned mode, std::uint32_t count, std::uint64_t passed) {
  x86::PitRegisters pit;
  pit.savedAt = 1'000'000;
  for (x86::PitCounter& c : pit.channels) {
    c.mode = static_cast<std::uint8_t>(mode);
    c.count = count;
    c.loaded = c.counting = true;
    c.since = pit.savedAt - passed;
  }
  return pit;
}

TEST(KvmChipForms, The8259AComesBack) {
  x86::PicRegisters pic{.irr = 0x12,
                        .imr = 0x34,
                        .isr = 0x56,
                        .levels = 0x78,
                        .elcr = 0x98,
                        .vectorBase = 0x20,
                        .lowestPriority = 7,
                        .initializing = 3,
                        .initialized = true,
                        .needIcw4 = true,
                        .readIsr = true,
                        .poll = true,
                        .specialMask = true,
                        .specialFullyNested = true,
                        .autoEoi = true,
                        .rotateOnAutoEoi = true};
  kvm_pic_state state;
  toKvm(pic, false, state);
  EXPECT_EQ(state.priority_add, 0) << "IR0 is first where IR7 is last";
  EXPECT_EQ(state.init_state, 2) << "ICW3 comes next";
  EXPECT_EQ(state.elcr_mask, 0xf8);
  EXPECT_EQ(state.last_irr, 0x78);
  toKvm(pic, true, state);
  EXPECT_EQ(state.elcr_mask, 0xde);
  x86::PicRegisters back;
  fromKvm(state, back);
  EXPECT_EQ(back.irr, pic.irr);
  EXPECT_EQ(back.imr, pic.imr);
  EXPECT_EQ(back.isr, pic.isr);
  EXPECT_EQ(back.elcr, pic.elcr);
  EXPECT_EQ(back.vectorBase, pic.vectorBase);
  EXPECT_EQ(back.lowestPriority, 7);
  EXPECT_EQ(back.initializing, 3);
  EXPECT_FALSE(back.initialized);
  EXPECT_TRUE(back.needIcw4 && back.readIsr && back.poll && back.specialMask && back.specialFullyNested &&
              back.autoEoi && back.rotateOnAutoEoi);
}

TEST(KvmChipForms, An8259AThatWasNeverSetUpAsksForNothing) {
  x86::PicRegisters pic;
  pic.irr = 1;
  kvm_pic_state state;
  toKvm(pic, false, state);
  EXPECT_EQ(state.imr, 0xff);
  fromKvm(state, pic);
  EXPECT_FALSE(pic.initialized);
  EXPECT_EQ(pic.imr, 0);
  state.irq_base = 0x08;  // the guest has set it up
  state.imr = 0xb8;
  fromKvm(state, pic);
  EXPECT_TRUE(pic.initialized);
  EXPECT_EQ(pic.imr, 0xb8);
}

TEST(KvmChipForms, PinsThatAreLevelTriggeredAskAgain) {
  x86::IoApicRegisters ioApic{};
  ioApic.levels = 0x1f;
  // level; edge; level, but an NMI; level, lowest priority; masked, which may become level-triggered
  ioApic.entries = {0x8030, 0x0030, 0x8430, 0x8130, 0x1'0000, 0x1'0000};
  kvm_ioapic_state state;
  toKvm(ioApic, state);
  EXPECT_EQ(state.irr, 0b11001u);
  EXPECT_EQ(state.base_address, 0xfec0'0000u);
  state.redirtbl[0].bits |= 0x1000;  // delivery status
  x86::IoApicRegisters back{};
  back.levels = 5;
  fromKvm(state, back);
  EXPECT_EQ(back.entries, ioApic.entries);
  EXPECT_EQ(back.levels, 5u);
}

TEST(KvmChipForms, ACounterThatCountsOnceGetsWhatIsLeft) {
  EXPECT_EQ(given(runs(0, 1000, 400)).channels[0].count, 600u);
  EXPECT_EQ(given(runs(2, 1000, 400)).channels[0].count, 1000u) << "this one repeats";
  // Over: the one with an interrupt is as far from the next as can be, the speaker's is over again.
  kvm_pit_state2 over = given(runs(0, 1000, 1000));
  EXPECT_EQ(over.channels[0].count, 0x10000u);
  EXPECT_EQ(over.channels[2].count, 1u);
  EXPECT_EQ(given(runs(4, 1000, 1000 + 0x10000 + 5)).channels[0].count, 0x10000u - 5);
  x86::PitRegisters changed = runs(2, 1000, 400);
  changed.channels[0].nextCount = 77;
  EXPECT_EQ(given(changed).channels[0].count, 77u);
}

TEST(KvmChipForms, CountersComeBackByKvmsClock) {
  kvm_pit_state2 state = given(runs(3, 1000, 0), true);
  EXPECT_EQ(state.flags, unsigned{KVM_PIT_FLAGS_HPET_LEGACY});
  state.channels[2].mode = 0;
  state.channels[2].count_load_time = 5'000'000;
  state.channels[2].gate = 1;
  state.channels[1].count_load_time = 7'000'000'000;  // later than now
  state.flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
  x86::PitRegisters pit;
  pit.control = 0x0c;
  fromKvm(state, 15'000'000, pit);
  EXPECT_EQ(pit.channels[0].elapsed, 500u);
  EXPECT_EQ(pit.channels[0].count, 1000u);
  EXPECT_EQ(pit.channels[1].elapsed, 0u);
  EXPECT_EQ(pit.channels[2].elapsed, 11931u);
  EXPECT_EQ(pit.control, 0x0f);
  state.channels[0].mode = 0;
  fromKvm(state, 15'000'000, pit);
  EXPECT_EQ(pit.channels[0].elapsed, 0u) << "its interrupt comes, perhaps again";
}

TEST(KvmChipForms, ACounterThatNobodyHasWrittenToDoesNotRun) {
  x86::PitRegisters pit;
  pit.savedAt = 1000;
  kvm_pit_state2 state = given(pit);
  EXPECT_EQ(state.channels[0].mode, 0xff);
  pit.channels[0].since = 5;  // a control word was written
  EXPECT_EQ(given(pit).channels[0].mode, 0);
  fromKvm(state, 0, pit);
  EXPECT_FALSE(pit.channels[0].loaded || pit.channels[0].counting);
  EXPECT_EQ(pit.channels[0].since, 0u);
}

TEST(KvmChipForms, BytesThatAreStillToBeReadOrWritten) {
  for (unsigned access = 1; access <= 3; ++access) {
    for (unsigned latched = 0; latched <= (access == 3 ? 2 : 1); ++latched) {
      for (bool high : {false, true}) {
        if (high && (access != 3 || latched == 2)) continue;
        x86::PitRegisters pit = runs(2, 1000, 0);
        x86::PitCounter& c = pit.channels[1];
        c.access = static_cast<std::uint8_t>(access);
        c.latchedBytes = static_cast<std::uint8_t>(latched);
        c.readHighNext = high || (access == 3 && latched == 1);
        c.highByteNext = high;
        c.latched = 0x1234;
        c.lowByte = 0x56;
        c.statusLatched = high;
        c.status = 0x34;
        x86::PitRegisters back;
        fromKvm(given(pit), 0, back);
        const x86::PitCounter& b = back.channels[1];
        EXPECT_EQ(b.access, c.access);
        EXPECT_EQ(b.latchedBytes, c.latchedBytes) << access << latched << high;
        EXPECT_EQ(b.readHighNext, c.readHighNext) << access << latched << high;
        EXPECT_EQ(b.highByteNext, c.highByteNext);
        EXPECT_EQ(b.latched, 0x1234);
        EXPECT_EQ(b.lowByte, 0x56);
        EXPECT_EQ(b.statusLatched, c.statusLatched);
        EXPECT_EQ(b.status, 0x34);
      }
    }
  }
}

}  // namespace
}  // namespace lodge::kvm
