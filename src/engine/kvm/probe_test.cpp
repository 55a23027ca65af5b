// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/probe.h"

#include <gtest/gtest.h>

#include <thread>

namespace lodge::kvm {
namespace {

TEST(KvmProbe, NamesWhatIsMissing) {
  ProbeResult absent = probe("/nonexistent/kvm");
  EXPECT_FALSE(absent.present);
  EXPECT_FALSE(absent.usable);
  EXPECT_EQ(absent.reason, "there is no /nonexistent/kvm");
  ProbeResult wrong = probe("/dev/null");
  EXPECT_TRUE(wrong.openable);
  EXPECT_FALSE(wrong.usable);
  EXPECT_EQ(wrong.reason, "/dev/null does not speak KVM's API");
}

/// Whatever this host has: an answer in time, consistent with itself, also in a process with threads.
TEST(KvmProbe, AnswersInTime) {
  std::thread other([] { std::this_thread::sleep_for(std::chrono::seconds(1)); });
  auto begin = std::chrono::steady_clock::now();
  ProbeResult result = probe();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(8));
  EXPECT_FALSE(result.reason.empty());
  if (result.usable) {
    EXPECT_TRUE(result.openable);
    EXPECT_GE(result.instructionsPerSecond, kMinInstructionsPerSecond);
  }
  RecordProperty("reason", result.reason);
  other.join();
}

}  // namespace
}  // namespace lodge::kvm
