// SPDX-License-Identifier: Apache-2.0
#include "machine/trace.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

TEST(Trace, ListsAndChecks) {
  EXPECT_TRUE(checkTrace(""));
  EXPECT_TRUE(checkTrace("io"));
  EXPECT_TRUE(checkTrace("steps,io"));
  EXPECT_TRUE(traces("steps,io", "io"));
  EXPECT_FALSE(traces("steps", "io"));
  EXPECT_FALSE(traces("", "io"));
  EXPECT_EQ(checkTrace("io,everything").error().message(), "--trace 'everything' does not exist");
  EXPECT_FALSE(checkTrace("io,"));
  EXPECT_TRUE(checkTrace("io,host-without=bmi2+memfd"));
  EXPECT_EQ(checkTrace("host-without=bmi2+wings").error().message(),
            "--trace host-without=wings: there is no such feature");
}

}  // namespace
}  // namespace lodge
