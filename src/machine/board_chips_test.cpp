// SPDX-License-Identifier: Apache-2.0
// An engine of the test's own keeps the interrupt controllers and the PIT.
#include "machine/board_chips.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "device/fakes.h"

namespace lodge {
namespace {

struct FakeEngine : Engine, ChipKeepingEngine {
  std::string_view name() const override { return "fake"; }
  Result<std::unique_ptr<Vcpu>> createVcpu(unsigned, x86::CpuEnvironment&) override {
    return Error(ErrorKind::unsupported, "none");
  }
  bool keepsChips() const override { return keeps; }
  void setLine(unsigned line, bool level) override { lines.emplace_back(line, level); }
  void silencePit(bool silent) override { silences.push_back(silent); }
  Status writeChips(const x86::ChipRegisters& registers) override {
    chips = registers;
    if (refuses) return Error(ErrorKind::io, "refused");
    return {};
  }
  Status readChips(x86::ChipRegisters& registers) override {
    registers = chips;
    return {};
  }
  bool keeps = true, refuses = false;
  x86::ChipRegisters chips;
  std::vector<std::pair<unsigned, bool>> lines;
  std::vector<bool> silences;
};

class BoardChipsTest : public testing::Test {
 protected:
  using Lines = std::vector<std::pair<unsigned, bool>>;
  BoardChipsTest() {
    for (unsigned n = 0; n < 2; ++n) {
      IoDevice& pic = n == 0 ? pic_.master() : pic_.slave();
      pic.write(0, 1, 0x11);
      for (unsigned value : {0x30u + 8 * n, 4u, 1u, n == 0 ? 0xeau : 0xffu}) pic.write(1, 1, value);  // IRQ 0, 2, 4
    }
  }
  void entry(unsigned pin, std::uint32_t low) {
    ioApic_.write(0, 4, 0x10 + 2 * pin);
    ioApic_.write(0x10, 4, low);
  }
  void startPit(unsigned mode, unsigned count) {
    pit_.counters().write(3, 1, 0x30 | mode << 1);
    pit_.counters().write(0, 1, count & 0xff);
    pit_.counters().write(0, 1, count >> 8);
  }
  void acknowledge() {
    while (intr_.level) {
      pic_.acknowledgeInterrupt();
      pic_.master().write(0, 1, 0x20);
    }
  }
  void give() {
    Status given = chips_.give(engine_);
    ASSERT_TRUE(given) << given.error().message();
  }
  void take() { ASSERT_TRUE(chips_.take()); }

  FakeClock clock_;
  FakeMessageSink sink_;
  FakeLine intr_;
  IoApic ioApic_{sink_, 0};
  Pic pic_{intr_};
  InterruptRouter router_{pic_, ioApic_};
  SwitchedInterrupt irq0_{router_.isa(0)};
  Pit pit_{clock_, irq0_.first()};
  BoardChips chips_{{pic_, ioApic_, pit_, router_, irq0_}};
  FakeEngine engine_;
};

TEST_F(BoardChipsTest, LinesGoToWhoHasTheChips) {
  entry(4, 0x34);
  router_.isa(4).set(true);
  EXPECT_EQ(sink_.sent.size(), 1u);
  EXPECT_TRUE(intr_.level);
  give();
  EXPECT_FALSE(intr_.level) << "nothing comes of the board's";
  router_.isa(4).set(true);  // no news
  router_.isa(4).set(false);
  router_.gsi(2).pulse();
  router_.gsi(19).set(true);
  EXPECT_EQ(engine_.lines, (Lines{{4, false}, {0, true}, {0, false}, {19, true}}));
  EXPECT_FALSE(router_.isa(4).waits());
  EXPECT_EQ(sink_.sent.size(), 1u);
  EXPECT_EQ(engine_.chips.pic[0].irr, 0x10);
  EXPECT_EQ(engine_.chips.ioApic.levels, 1u << 4);
  take();
  EXPECT_TRUE(intr_.level) << "IRQ 4 waits as before";
  EXPECT_EQ(pic_.save()[0].levels, 0);
  EXPECT_EQ(ioApic_.save().levels, 1u << 19);
  EXPECT_EQ(ioApic_.save().entries[4], 0x34u);
  router_.isa(4).set(true);
  EXPECT_EQ(sink_.sent.size(), 2u);
}

TEST_F(BoardChipsTest, ALevelThatRoseMeanwhileAsksWhenItIsBack) {
  entry(20, 0x8041);
  give();
  router_.gsi(20).set(true);
  EXPECT_TRUE(sink_.sent.empty());
  take();
  ASSERT_EQ(sink_.sent.size(), 1u);
  EXPECT_EQ(sink_.sent[0].vector, 0x41);
  EXPECT_TRUE(sink_.sent[0].levelTriggered);
}

TEST_F(BoardChipsTest, ThePitStandsStillAndGoesOnAsItCameBack) {
  startPit(2, 11932);  // 10 ms
  acknowledge();       // its output rises when it is set up
  clock_.advance(12'000'000);
  acknowledge();
  give();
  EXPECT_EQ(engine_.lines, Lines{}) << "the tick before is nearer than the next";
  EXPECT_FALSE(engine_.chips.pitIsSilent);
  clock_.advance(100'000'000);
  EXPECT_EQ(engine_.lines, Lines{}) << "ticks are the engine's";
  engine_.chips.pit.channels[0] = {.mode = 2, .loaded = true, .counting = true, .count = 11932, .elapsed = 5966};
  engine_.chips.pit.savedAt = 0;
  take();
  clock_.advance(4'900'000);
  EXPECT_FALSE(intr_.level);
  clock_.advance(200'000);
  EXPECT_TRUE(intr_.level);
}

TEST_F(BoardChipsTest, ATickThatIsDueOrNearIsNotLostByAPeriodThatBeginsAnew) {
  startPit(2, 11932);
  acknowledge();
  clock_.advance(7'000'000);
  give();
  EXPECT_EQ(engine_.lines, (Lines{{0, true}, {0, false}}));
  take();
  engine_.lines.clear();
  startPit(0, 11932);  // once: the engine gets what is left
  clock_.advance(7'000'000);
  give();
  EXPECT_EQ(engine_.lines, Lines{});
}

TEST_F(BoardChipsTest, TheHpetSilencesThePit) {
  startPit(2, 11932);
  acknowledge();
  irq0_.select(true);
  chips_.pitSilenced(true);
  EXPECT_TRUE(engine_.silences.empty());
  clock_.advance(9'000'000);
  give();
  EXPECT_TRUE(engine_.chips.pitIsSilent);
  EXPECT_EQ(engine_.lines, Lines{});
  irq0_.second().pulse();
  EXPECT_EQ(engine_.lines, (Lines{{0, true}, {0, false}}));
  chips_.pitSilenced(false);
  EXPECT_EQ(engine_.silences, std::vector<bool>{false});
}

TEST_F(BoardChipsTest, AnEngineThatDoesNotKeepThemGetsNothing) {
  engine_.keeps = false;
  give();
  router_.isa(4).set(true);
  EXPECT_TRUE(intr_.level);
  EXPECT_TRUE(engine_.lines.empty());
  take();
  EXPECT_TRUE(intr_.level);
}

TEST_F(BoardChipsTest, ARefusalIsTold) {
  engine_.refuses = true;
  Status given = chips_.give(engine_);
  ASSERT_FALSE(given);
  EXPECT_EQ(given.error().message(), "refused");
}

}  // namespace
}  // namespace lodge
