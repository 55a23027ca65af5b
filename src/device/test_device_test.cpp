// SPDX-License-Identifier: Apache-2.0
#include "device/test_device.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

struct Line : InterruptLine {
  void set(bool value) override { level = value; }
  bool level = false;
};

TEST(TestDevice, echoesPartsAndDrivesLines) {
  IoBus ports("port I/O"), memory("memory");
  Line line;
  TestDevice device({nullptr, &line});
  ASSERT_TRUE(device.plug(ports, memory));
  ports.write(0xe0, 4, 0x11223344);
  ports.write(0xe1, 1, 0xaa);
  EXPECT_EQ(ports.read(0xe0, 4), 0x1122aa44u);
  EXPECT_EQ(ports.read(0xe2, 2), 0x1122u);
  ports.write(0x2001, 1, 1);
  EXPECT_TRUE(line.level);
  ports.write(0x2001, 1, 0);
  EXPECT_FALSE(line.level);
  ports.write(0x2000, 1, 1);
  memory.write(0xff00fff8, 8, 0x0102030405060708);
  EXPECT_EQ(memory.read(0xff00fffc, 4), 0x01020304u);
}

}  // namespace
}  // namespace lodge
