// SPDX-License-Identifier: Apache-2.0
#include "engine/choose.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

kvm::ProbeResult good() {
  return {.usable = true, .reason = "fast"};
}
kvm::ProbeResult bad() {
  return {.usable = false, .reason = "the probe guest triple-faulted"};
}
kvm::ProbeResult mustNotBeAsked() {
  ADD_FAILURE() << "the probe ran for nothing";
  return {};
}

constexpr EnginesBuilt kAll = {.translate = true, .kvm = true};
constexpr EnginesBuilt kNoKvm = {.translate = true, .kvm = false};

TEST(ChooseEngine, AutoTakesKvmOnlyIfItWorks) {
  EXPECT_EQ(chooseEngine("auto", kAll, good)->name, "kvm");
  auto choice = chooseEngine("auto", kAll, bad);
  EXPECT_EQ(choice->name, "translate");
  EXPECT_EQ(choice->reason, "the probe guest triple-faulted");
}

TEST(ChooseEngine, AutoWithoutAKvmEngineDoesNotProbe) {
  auto choice = chooseEngine("auto", kNoKvm, mustNotBeAsked);
  EXPECT_EQ(choice->name, "translate");
  EXPECT_EQ(choice->reason, "this version has no KVM engine");
  EXPECT_EQ(chooseEngine("auto", {false, false}, mustNotBeAsked)->name, "interpret");
}

TEST(ChooseEngine, AskingForWhatIsNotThereFails) {
  EXPECT_EQ(chooseEngine("kvm", kNoKvm, mustNotBeAsked).error().message(),
            "--engine kvm: this version has no KVM engine");
  EXPECT_EQ(chooseEngine("kvm", kAll, bad).error().message(), "--engine kvm: the probe guest triple-faulted");
  EXPECT_EQ(chooseEngine("kvm", kAll, good)->name, "kvm");
  EXPECT_EQ(chooseEngine("translate", {false, false}, mustNotBeAsked).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(chooseEngine("warp", kAll, mustNotBeAsked).error().kind(), ErrorKind::notFound);
  EXPECT_EQ(chooseEngine("interpret", kAll, mustNotBeAsked)->name, "interpret");
}

}  // namespace
}  // namespace lodge
