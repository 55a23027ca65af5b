// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

using test::Bytes;
using test::readAt;
using testing::HasSubstr;

constexpr std::uint64_t kKernel = 0x1000000;

Bytes pvhKernel(const Bytes& notes) {
  return test::makeElf64(0xffffffff81000000, {{kKernel, 0xffffffff81000000, test::pattern(5000, 1), 20000}}, notes);
}

TEST(Pvh, EntersFlatProtectedModeWithStartInfoInEbx) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(pvhKernel(test::pvhNote(kKernel + 0x100)), "a=b"));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, kKernel + 0x100);
  EXPECT_EQ(boot->cr0 & ~x86::cr0::et, x86::cr0::pe);
  EXPECT_EQ(boot->cr4, 0u);
  EXPECT_EQ(boot->efer, 0u);
  EXPECT_EQ(boot->rflags, 2u);
  EXPECT_TRUE(boot->segment[x86::cs].big());
  EXPECT_EQ(boot->segment[x86::cs].limit, 0xffffffffu);
  EXPECT_EQ(boot->segment[x86::es].limit, 0xffffffffu);
  EXPECT_EQ(boot->tr.limit, 0x67u);
  EXPECT_EQ(boot->tr.attributes & 0xf, 0xb);
  std::uint64_t info = boot->gpr[x86::rbx];
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info), 0x336ec578u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 4), 1u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 12), 0u) << "modules";
  EXPECT_EQ(test::readText(*memory, readAt<std::uint64_t>(*memory, info + 24)), "a=b");
  EXPECT_EQ(readAt<std::uint64_t>(*memory, info + 32), 0xe0000u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 48), 4u);
  std::uint64_t map = readAt<std::uint64_t>(*memory, info + 40);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, map + 8), 0x9fc00u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, map + 16), 1u);
}

TEST(Pvh, SegmentsAreCopiedAndTheRestIsZeroedAgainAtReset) {
  auto memory = test::ram(64_MiB);
  BootRequest request = test::request(pvhKernel(test::pvhNote(kKernel)));
  ASSERT_TRUE(loadKernel(*memory, request));
  ASSERT_TRUE(memory->fill(Gpa{kKernel}, std::byte{0xff}, 20000));
  ASSERT_TRUE(loadKernel(*memory, request));
  EXPECT_EQ(test::readGuest(*memory, kKernel, 5000), test::pattern(5000, 1));
  EXPECT_EQ(test::readGuest(*memory, kKernel + 5000, 15000), Bytes(15000));
}

TEST(Pvh, ModulesAreListedWithTheirArguments) {
  auto memory = test::ram(64_MiB);
  BootRequest request = test::request(pvhKernel(test::pvhNote(kKernel)));
  request.modules.push_back({ImageFile::fromBytes("one", test::pattern(10, 1)), "one x=1"});
  request.modules.push_back({ImageFile::fromBytes("two", test::pattern(9000, 2)), "two"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot);
  std::uint64_t info = boot->gpr[x86::rbx];
  ASSERT_EQ(readAt<std::uint32_t>(*memory, info + 12), 2u);
  std::uint64_t list = readAt<std::uint64_t>(*memory, info + 16);
  EXPECT_EQ(test::readText(*memory, readAt<std::uint64_t>(*memory, list + 16)), "one x=1");
  EXPECT_EQ(readAt<std::uint64_t>(*memory, list + 32 + 8), 9000u);
  EXPECT_EQ(test::readGuest(*memory, readAt<std::uint64_t>(*memory, list + 32), 9000), test::pattern(9000, 2));
}

TEST(Pvh, LinuxGetsOneInitrd) {
  auto memory = test::ram(64_MiB);
  Bytes notes = test::pvhNote(kKernel);
  test::addNote(notes, "Linux", 0x100, test::pattern(4, 0));
  BootRequest request = test::request(pvhKernel(notes));
  request.modules.push_back({ImageFile::fromBytes("one", test::pattern(10, 1)), "one"});
  request.modules.push_back({ImageFile::fromBytes("two", test::pattern(20, 2)), "two"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot);
  std::uint64_t info = boot->gpr[x86::rbx];
  ASSERT_EQ(readAt<std::uint32_t>(*memory, info + 12), 1u);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, readAt<std::uint64_t>(*memory, info + 16) + 8), 32u);
}

TEST(Pvh, Elf32KernelsWorkToo) {
  auto memory = test::ram(64_MiB);
  Bytes kernel = test::makeElf32(kKernel, {{kKernel, kKernel, test::pattern(100, 1), 100}}, test::pvhNote(kKernel + 4));
  auto boot = loadKernel(*memory, test::request(kernel));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, kKernel + 4);
}

std::string failure(const Bytes& kernel, std::uint64_t memorySize, ErrorKind kind) {
  auto memory = test::ram(memorySize);
  auto refused = loadKernel(*memory, test::request(kernel));
  if (refused) return "loaded";
  EXPECT_EQ(refused.error().kind(), kind);
  return refused.error().message();
}

TEST(Pvh, Refusals) {
  EXPECT_THAT(failure(pvhKernel(test::pvhNote(0x5000)), 64_MiB, ErrorKind::corrupt),
              HasSubstr("PVH entry 0x5000 outside"));
  EXPECT_THAT(failure(pvhKernel(test::pvhNote(kKernel)), 16_MiB, ErrorKind::invalidArgument),
              HasSubstr("a segment of 'kernel' at 0x1000000 (20 KiB) does not fit into 16 MiB"));
  EXPECT_THAT(failure(pvhKernel({}), 64_MiB, ErrorKind::invalidArgument),
              HasSubstr("neither a PVH note nor a multiboot header"));
  Bytes cut = pvhKernel(test::pvhNote(kKernel));
  cut.resize(6000);
  EXPECT_THAT(failure(cut, 64_MiB, ErrorKind::corrupt), HasSubstr("'kernel' is truncated"));
  Bytes arm = pvhKernel(test::pvhNote(kKernel));
  test::store<std::uint16_t>(arm, 18, 183);
  EXPECT_THAT(failure(arm, 64_MiB, ErrorKind::unsupported), HasSubstr("another processor (machine 183)"));
  Bytes overlap = test::makeElf64(
      kKernel, {{kKernel, kKernel, test::pattern(64, 1), 8192}, {kKernel + 4096, 0, test::pattern(64, 1), 64}},
      test::pvhNote(kKernel));
  EXPECT_THAT(failure(overlap, 64_MiB, ErrorKind::corrupt), HasSubstr("two segments overlap at 0x1001000"));
  Bytes reserved = test::makeElf64(kKernel, {{0xf0000, 0xf0000, test::pattern(64, 1), 64}}, test::pvhNote(0xf0000));
  EXPECT_THAT(failure(reserved, 64_MiB, ErrorKind::invalidArgument), HasSubstr("a segment of 'kernel' at 0xf0000"));
}

}  // namespace
}  // namespace lodge::firmware
