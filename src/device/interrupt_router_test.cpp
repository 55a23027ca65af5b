// SPDX-License-Identifier: Apache-2.0
#include "device/interrupt_router.h"

#include <gtest/gtest.h>

#include "device/fakes.h"

namespace lodge {
namespace {

TEST(InterruptRouterTest, IsaLinesGoToBothControllers) {
  FakeMessageSink sink;
  IoApic ioApic(sink, 0);
  FakeLine out;
  Pic pic(out);
  InterruptRouter router(pic, ioApic);
  auto unmask = [&](unsigned pin, unsigned vector) {
    ioApic.write(0, 4, 0x10 + 2 * pin);
    ioApic.write(0x10, 4, vector);
  };
  unmask(2, 0x30);
  unmask(4, 0x34);
  unmask(17, 0x41);
  router.isa(0).pulse();
  router.gsi(4).pulse();
  router.gsi(17).pulse();
  router.gsi(2).pulse();
  ASSERT_EQ(sink.sent.size(), 4u);
  EXPECT_EQ(sink.sent[0].vector, 0x30);
  EXPECT_EQ(sink.sent[1].vector, 0x34);
  EXPECT_EQ(sink.sent[2].vector, 0x41);
  EXPECT_EQ(sink.sent[3].vector, 0x30);
  EXPECT_EQ(pic.save()[0].irr, 0x11);
}

TEST(SharedInterruptTest, IsTheOrOfItsInputs) {
  FakeLine out;
  SharedInterrupt shared(out);
  shared.input(0).set(true);
  shared.input(31).set(true);
  shared.input(0).set(false);
  EXPECT_TRUE(out.level);
  EXPECT_EQ(out.rises, 1);
  shared.input(31).set(false);
  EXPECT_FALSE(out.level);
}

}  // namespace
}  // namespace lodge
