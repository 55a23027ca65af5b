// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/probe_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace lodge::kvm {
namespace {

class KvmProbeCache : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(folder_); }
  ProbeCache cache(const std::string& boot = "boot-1\n") const { return {device_, file_, boot}; }
  ProbeResult ask(const ProbeCache& cache) {
    return cache.get([this] {
      ++probes_;
      return ProbeResult{.present = true,
                         .openable = openable_,
                         .apiVersion = 12,
                         .usable = true,
                         .instructionsPerSecond = 2e9,
                         .reason = "it ran"};
    });
  }

  // A file that may be opened stands for the device.
  std::string folder_ = testing::TempDir() + "lodge-probe-" + std::to_string(::getpid());
  std::string file_ = folder_ + "/deep/kvm-probe", device_ = "/dev/null";
  bool openable_ = true;
  int probes_ = 0;
};

TEST_F(KvmProbeCache, ProbesOnceInABoot) {
  ask(cache());
  ProbeResult again = ask(cache());
  EXPECT_EQ(probes_, 1);
  EXPECT_TRUE(again.usable && again.openable && again.present);
  EXPECT_EQ(again.apiVersion, 12);
  EXPECT_EQ(again.instructionsPerSecond, 2e9);
  EXPECT_EQ(again.reason, "it ran");
  ask(cache("boot-2\n"));
  EXPECT_EQ(probes_, 2);
}

TEST_F(KvmProbeCache, KeepsNothingOfADeviceThatCannotBeOpened) {
  openable_ = false;
  ask(cache());
  ask(cache());
  EXPECT_EQ(probes_, 2);
  EXPECT_FALSE(ProbeCache("/nonexistent/kvm", file_, "boot-1").load());
}

TEST_F(KvmProbeCache, BelievesNoDamagedOrForeignFile) {
  ask(cache());
  ASSERT_TRUE(cache().load());
  ::chmod(file_.c_str(), 0622);
  EXPECT_FALSE(cache().load());
  ::chmod(file_.c_str(), 0600);
  std::string text;
  std::getline(std::ifstream(file_), text, '\0');
  for (std::size_t cut = 0; cut + 1 < text.size() - std::string("t ran\n").size(); ++cut) {
    std::ofstream(file_, std::ios::trunc) << text.substr(0, cut);
    EXPECT_FALSE(cache().load()) << cut;
  }
}

TEST_F(KvmProbeCache, WorksWithoutAPlace) {
  ProbeCache nowhere("/dev/null", "", "boot-1");
  ask(nowhere);
  ask(nowhere);
  EXPECT_EQ(probes_, 2);
  ProbeCache forbidden("/dev/null", "/proc/lodge/kvm-probe", "boot-1");
  EXPECT_TRUE(ask(forbidden).usable);
}

}  // namespace
}  // namespace lodge::kvm
