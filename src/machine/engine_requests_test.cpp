// SPDX-License-Identifier: Apache-2.0
#include "machine/engine_requests.h"

#include <gtest/gtest.h>

#include "engine/choose.h"

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

TEST(EngineRequests, TakeTheRateOfTheTimeStampCounter) {
  EXPECT_EQ(of("host")->tscHz, 0u);
  EXPECT_EQ(of("host,tsc-frequency=2400000000")->tscHz, 2'400'000'000u);
  EXPECT_EQ(of("host,tsc-frequency=2.4G")->tscHz, 2'400'000'000u);
  EXPECT_EQ(of("x86-64-v2,tsc-frequency=133.333M,nested")->tscHz, 133'333'000u);
  EXPECT_EQ(of("host,tsc-frequency=100000k")->tscHz, 100'000'000u);
  for (const char* bad : {"99.9M", "25.6G", "", "G", "2.4g", "-2.4G", "2.4GHz", "1e9", "nan", "inf", "0x10", "2,4G"}) {
    auto made = of((std::string("host,tsc-frequency=") + bad).c_str());
    ASSERT_FALSE(made) << bad;
    EXPECT_EQ(made.error().kind(), ErrorKind::invalidArgument);
  }
}

TEST(EngineRequests, AreRefusedByNameWhereTheyCannotBe) {
  EXPECT_TRUE(of("host")->check("translate"));
  EXPECT_TRUE(of("host,nested")->check("kvm"));
  EXPECT_EQ(of("host,nested")->check("translate").error().message(), "--nested: engine translate cannot do that");
  EXPECT_EQ(of("host,hyperv")->check("interpret").error().message(), "--hyperv: engine interpret cannot do that");
}

TEST(EngineRequests, AMachineMovesWhileItsGuestUsesNoVirtualization) {
  auto move = [](const char* model, const char* engine, Virtualization used) {
    Status may = of(model)->checkMove(engine, used);
    return may ? std::string() : may.error().message();
  };
  EXPECT_EQ(move("host,nested", "translate", Virtualization::none), "");
  EXPECT_EQ(move("host,nested", "kvm", Virtualization::svm), "");
  EXPECT_EQ(move("host,nested", "translate", Virtualization::svm),
            "the guest uses SVM (EFER.SVME), which engine translate does not have");
  EXPECT_EQ(move("host,nested", "interpret", Virtualization::vmx),
            "the guest uses VMX (CR4.VMXE), which engine interpret does not have");
  EXPECT_EQ(move("host,nested,hyperv", "translate", Virtualization::none), "--hyperv: engine translate cannot do that");
}

TEST(EngineRequests, KeepAMachineOnKvmThatCannotScaleItsCounter) {
  std::string other = enginesBuilt().translate ? "translate" : "interpret";
  EXPECT_EQ(of("host,tsc-frequency=6G")->insteadOfKvm(false), other);
  EXPECT_EQ(of("host,nested,tsc-frequency=6G")->insteadOfKvm(false), "") << "it would have no virtualization";
  EXPECT_EQ(of("host,nested,tsc-frequency=6G")->insteadOfKvm(true), other) << "as long as its guest uses none";
  EXPECT_EQ(of("host,hyperv,tsc-frequency=6G")->insteadOfKvm(false), "");
  EXPECT_EQ(of("host,hyperv,tsc-frequency=6G")->insteadOfKvm(true), "");
}

TEST(EngineRequests, AnotherEnginesGuestCannotTurnVirtualizationOn) {
  x86::CpuModel model{};
  model.eferSupported = x86::efer::lme | x86::efer::svme;
  model.cr4Supported = x86::cr4::pae | kCr4Vmxe;
  ASSERT_TRUE(of("host,nested")->applyMove("translate", model, Irqchip::best));
  EXPECT_EQ(model.eferSupported, x86::efer::lme);
  EXPECT_EQ(model.cr4Supported, x86::cr4::pae);
}

}  // namespace
}  // namespace lodge
