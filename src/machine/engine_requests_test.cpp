// SPDX-License-Identifier: Apache-2.0
#include "machine/engine_requests.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

Result<EngineRequests> of(const char* model) {
  MachineConfig config;
  config.cpuModel = model;
  return EngineRequests::of(config);
}

TEST(EngineRequests, AreWordsAfterTheCpuModel) {
  auto none = of("x86-64-v3");
  ASSERT_TRUE(none);
  EXPECT_EQ(none->cpuModel, "x86-64-v3");
  EXPECT_FALSE(none->interfaces.any());
  auto both = of("host,hyperv,nested");
  ASSERT_TRUE(both);
  EXPECT_EQ(both->cpuModel, "host");
  EXPECT_TRUE(both->interfaces.hyperv && both->interfaces.nested);
  EXPECT_EQ(of("host,turbo").error().kind(), ErrorKind::invalidArgument);
}

TEST(EngineRequests, AreRefusedByNameWhereTheyCannotBe) {
  EXPECT_TRUE(of("host")->check("translate"));
  EXPECT_TRUE(of("host,nested")->check("kvm"));
  EXPECT_EQ(of("host,nested")->check("translate").error().message(), "--nested: engine translate cannot do that");
  EXPECT_EQ(of("host,hyperv")->check("interpret").error().message(), "--hyperv: engine interpret cannot do that");
  EXPECT_TRUE(of("host")->checkLeaving("saved"));
  EXPECT_EQ(of("host,nested")->checkLeaving("moved").error().message(),
            "the machine cannot be moved: the state of nested virtualization (--nested) is the host's KVM's alone");
  EXPECT_FALSE(of("host,hyperv")->checkLeaving("saved"));
}

}  // namespace
}  // namespace lodge
