// SPDX-License-Identifier: Apache-2.0
#include "firmware/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

using test::Bytes;
using testing::HasSubstr;

class LoaderFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "lodge-loader-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name, const Bytes& bytes) {
    std::string path = (folder_ / name).string();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  std::string path(const std::string& name) { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

Bytes text(std::string_view value) {
  Bytes bytes(value.size());
  std::memcpy(bytes.data(), value.data(), value.size());
  return bytes;
}

TEST_F(LoaderFiles, MissingKernelIsNamed) {
  auto request = openBootRequest(path("none"), {}, "", {});
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().kind(), ErrorKind::notFound);
  EXPECT_EQ(request.error().message(), "kernel: open '" + path("none") + "': No such file or directory");
  EXPECT_EQ(request.error().hint(), "check the path given to --kernel");
}

TEST_F(LoaderFiles, FolderIsNoKernel) {
  auto request = openBootRequest(folder_.string(), {}, "", {});
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().kind(), ErrorKind::invalidArgument);
}

TEST_F(LoaderFiles, MissingInitrdIsNamed) {
  auto request = openBootRequest(file("k", test::makeBzImage()), {path("none")}, "", {});
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().message(), "initrd: open '" + path("none") + "': No such file or directory");
}

TEST_F(LoaderFiles, WhatIsNoKernelIsTold) {
  auto message = [&](const Bytes& bytes) {
    auto request = openBootRequest(file("f", bytes), {}, "", {});
    if (request) return std::string("a kernel");
    EXPECT_EQ(request.error().kind(), ErrorKind::invalidArgument);
    EXPECT_FALSE(request.error().hint().empty());
    return request.error().message();
  };
  EXPECT_THAT(message({}), HasSubstr("is empty"));
  EXPECT_THAT(message(text("hello")), HasSubstr("is not a kernel"));
  EXPECT_THAT(message(text("\x1f\x8b\x08 abc")), HasSubstr("it is a compressed file"));
  EXPECT_THAT(message(text("070701000")), HasSubstr("it is a cpio archive"));
  EXPECT_THAT(message(text("MZ and more")), HasSubstr("EFI or Windows program"));
}

TEST_F(LoaderFiles, ModulePathsEndAtTheFirstSpaceUnlessTheFileIsNamedSo) {
  std::string plain = file("module", test::pattern(10, 1)), spaced = file("my module", test::pattern(20, 1));
  Bytes content = test::pattern(100, 1);
  Bytes header = test::multibootHeader(0);
  std::copy(header.begin(), header.end(), content.begin());
  std::string kernel = file("k", test::makeElf32(0x100000, {{0x100000, 0x100000, content, 100}}));
  auto request = openBootRequest(kernel, {plain + " a=1 b", spaced}, "", {});
  ASSERT_TRUE(request) << request.error().message();
  EXPECT_EQ(request->modules[0].file->size(), 10u);
  EXPECT_EQ(request->modules[0].arguments, plain + " a=1 b");
  EXPECT_EQ(request->modules[1].file->size(), 20u);
  EXPECT_FALSE(openBootRequest(file("b", test::makeBzImage()), {plain + " a=1"}, "", {}))
      << "a bzImage's initrds have no arguments";
}

TEST_F(LoaderFiles, ADeletedKernelCanStillBeReloaded) {
  std::string kernel = file("k", test::makeBzImage());
  auto request = openBootRequest(kernel, {}, "", {});
  ASSERT_TRUE(request);
  ASSERT_EQ(::unlink(kernel.c_str()), 0);
  auto memory = test::ram(64_MiB);
  EXPECT_TRUE(loadKernel(*memory, *request));
}

TEST_F(LoaderFiles, AKernelCutWhileInUseIsAnError) {
  std::string kernel = file("k", test::makeBzImage());
  auto request = openBootRequest(kernel, {}, "", {});
  ASSERT_TRUE(request);
  ASSERT_EQ(::truncate(kernel.c_str(), 2000), 0);
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, *request);
  ASSERT_FALSE(boot);
  EXPECT_THAT(boot.error().message(), HasSubstr("became shorter"));
}

TEST_F(LoaderFiles, APipeIsReadOnce) {
  std::string fifo = path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  std::thread writer([&] {
    Bytes kernel = test::makeBzImage();
    std::ofstream out(fifo, std::ios::binary);
    out.write(reinterpret_cast<const char*>(kernel.data()), static_cast<std::streamsize>(kernel.size()));
  });
  auto request = openBootRequest(fifo, {}, "", {});
  writer.join();
  ASSERT_TRUE(request) << request.error().message();
  auto memory = test::ram(64_MiB);
  EXPECT_TRUE(loadKernel(*memory, *request));
  EXPECT_TRUE(loadKernel(*memory, *request)) << "again at reset";
}

TEST_F(LoaderFiles, InitrdLargerThanMemory) {
  std::string initrd = file("i", {});
  ASSERT_EQ(::truncate(initrd.c_str(), 200 << 20), 0);
  auto request = openBootRequest(file("k", test::makeBzImage()), {initrd}, "", {});
  ASSERT_TRUE(request);
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, *request);
  ASSERT_FALSE(boot);
  EXPECT_EQ(boot.error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(boot.error().message(),
            "load kernel: initrd '" + initrd + "' (204800 KiB) does not fit into 64 MiB of guest memory");
  EXPECT_EQ(boot.error().hint(), "give the machine more memory (-m)");
}

TEST(Loader, ABoardThatAcpiCannotDescribeIsRefused) {
  auto memory = test::ram(64_MiB);
  BootRequest request = test::request(test::makeBzImage());
  request.platform.cpus = 0;
  auto boot = loadKernel(*memory, request);
  ASSERT_FALSE(boot);
  EXPECT_THAT(boot.error().message(), HasSubstr("0 CPUs"));
}

TEST(Loader, BootStateIsAppliedAndTheRestLeftAlone) {
  auto state = std::make_unique<x86::CpuState>();
  state->tscAux = 7;
  state->activity = x86::Activity::waitForSipi;
  BootState boot = longModeState(0x1000, 0x2000, 0x1000200);
  boot.gpr[x86::rsi] = 0x3000;
  applyBootState(boot, *state);
  EXPECT_EQ(state->rip, 0x1000200u);
  EXPECT_EQ(state->gpr[x86::rsi], 0x3000u);
  EXPECT_EQ(state->cr3, 0x2000u);
  EXPECT_EQ(state->gdtr.base, 0x1000u);
  EXPECT_EQ(state->segment[x86::cs].selector, kBootCs);
  EXPECT_EQ(state->activity, x86::Activity::running);
  EXPECT_EQ(state->tscAux, 7u);
}

TEST(Loader, FirmwareMsrsMakeRamWriteBackAndTheHoleUncached) {
  auto state = std::make_unique<x86::CpuState>();
  applyFirmwareMsrs({}, *state);
  EXPECT_EQ(state->mtrrDefType, 0xc06u);
  EXPECT_EQ(state->mtrrFixed[0], 0x0606060606060606u);
  EXPECT_EQ(state->mtrrFixed[2], 0u);
  EXPECT_EQ(state->mtrrPhysBase[0], 0xc0000000u);
  EXPECT_EQ(state->mtrrPhysMask[0], 0xffc0000800u);
}

std::filesystem::path guestFolder() {
  auto variable = [](const char* name) { return std::string(std::getenv(name) ? std::getenv(name) : ""); };
  if (!variable("LODGE_CACHE").empty()) return std::filesystem::path(variable("LODGE_CACHE")) / "guest";
  std::filesystem::path cache = variable("XDG_CACHE_HOME");
  if (cache.empty()) cache = std::filesystem::path(variable("HOME")) / ".cache";
  return cache / "lodge" / "guest";
}

TEST(Loader, DebianCloudKernel) {
  std::string kernel = (guestFolder() / "vmlinuz").string();
  if (::access(kernel.c_str(), R_OK) != 0) GTEST_SKIP() << "no " << kernel << " (made by tools/make-guest)";
  auto request = openBootRequest(kernel, {}, "console=ttyS0", {});
  ASSERT_TRUE(request) << request.error().message();
  EXPECT_EQ(*detectKernel(*request->kernel), KernelKind::bzImage);
  auto memory = test::ram(256_MiB);
  auto boot = loadKernel(*memory, *request);
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, 0x1000200u) << "CONFIG_PHYSICAL_START of Debian's kernels";
  auto small = test::ram(32_MiB);
  auto refused = loadKernel(*small, *request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalidArgument);
}

}  // namespace
}  // namespace lodge::firmware
