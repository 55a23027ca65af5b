// SPDX-License-Identifier: Apache-2.0
#include "firmware/aml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/resources.h"

namespace lodge::firmware {
namespace {

using Bytes = std::vector<std::uint8_t>;
using testing::ElementsAre;

Bytes written(const std::function<void(AmlWriter&)>& write) {
  AmlWriter aml;
  write(aml);
  return aml.take();
}

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_THAT(written([](auto& a) { a.integer(0); }), ElementsAre(0x00));
  EXPECT_THAT(written([](auto& a) { a.integer(1); }), ElementsAre(0x01));
  EXPECT_THAT(written([](auto& a) { a.integer(0xff); }), ElementsAre(0x0a, 0xff));
  EXPECT_THAT(written([](auto& a) { a.integer(0x100); }), ElementsAre(0x0b, 0x00, 0x01));
  EXPECT_THAT(written([](auto& a) { a.integer(0x10000); }), ElementsAre(0x0c, 0, 0, 1, 0));
  EXPECT_THAT(written([](auto& a) { a.integer(0x100000000); }), ElementsAre(0x0e, 0, 0, 0, 0, 1, 0, 0, 0));
}

TEST(Aml, NamesArePaddedAndPrefixed) {
  EXPECT_THAT(written([](auto& a) { a.nameReference("ABC"); }), ElementsAre('A', 'B', 'C', '_'));
  EXPECT_THAT(written([](auto& a) { a.nameReference("\\_SB"); }), ElementsAre('\\', '_', 'S', 'B', '_'));
  EXPECT_THAT(written([](auto& a) { a.nameReference("\\_SB.PCI0"); }),
              ElementsAre('\\', 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0'));
  EXPECT_THAT(written([](auto& a) { a.nameReference("A.B.C"); }),
              ElementsAre(0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'));
}

TEST(Aml, EisaIdAndUuid) {
  EXPECT_THAT(written([](auto& a) { a.eisaId("PNP0A08"); }), ElementsAre(0x0c, 0x41, 0xd0, 0x0a, 0x08));
  EXPECT_THAT(written([](auto& a) { a.uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766"); }),
              ElementsAre(0x11, 0x13, 0x0a, 0x10, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74,
                          0x41, 0xc0, 0x3d, 0xd7, 0x66));
}

// The length counts its own bytes: one byte up to 63, two up to 4095, three up to 1048575.
TEST(Aml, PackageLengthsGrowAtTheirLimits) {
  auto lengthBytes = [](std::size_t body) {
    Bytes bytes = written([&](auto& a) {
      a.otherwise([&] {
        for (std::size_t i = 0; i < body; ++i) a.integer(0);
      });
    });
    return Bytes(bytes.begin() + 1, bytes.end() - static_cast<std::ptrdiff_t>(body));
  };
  EXPECT_THAT(lengthBytes(0), ElementsAre(0x01));
  EXPECT_THAT(lengthBytes(62), ElementsAre(0x3f));
  EXPECT_THAT(lengthBytes(63), ElementsAre(0x41, 0x04));
  EXPECT_THAT(lengthBytes(4093), ElementsAre(0x4f, 0xff));
  EXPECT_THAT(lengthBytes(4094), ElementsAre(0x81, 0x00, 0x01));
  EXPECT_THAT(lengthBytes(0xffffc), ElementsAre(0x8f, 0xff, 0xff));
  EXPECT_THAT(lengthBytes(0xffffd), ElementsAre(0xc1, 0x00, 0x00, 0x01));
}

TEST(Resources, PortsAndInterrupts) {
  ResourceWriter resources;
  resources.io(0x3f8, 8).irq(4);
  EXPECT_THAT(resources.take(),
              ElementsAre(0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00));
}

TEST(Resources, WindowsGiveFirstLastAndLength) {
  ResourceWriter resources;
  resources.memoryWindow32(0xc0000000, 0x20000000);
  EXPECT_THAT(resources.take(), ElementsAre(0x87, 23, 0, 0, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xdf,
                                            0, 0, 0, 0, 0, 0, 0, 0x20, 0x79, 0x00));
}

}  // namespace
}  // namespace lodge::firmware
