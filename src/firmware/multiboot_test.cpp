// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

using test::Bytes;
using test::readAt;
using testing::HasSubstr;

constexpr std::uint32_t kKernel = 0x400000;

Bytes withHeader(std::size_t length, std::size_t offset, const Bytes& header) {
  Bytes content = test::pattern(length, 1);
  std::copy(header.begin(), header.end(), content.begin() + static_cast<std::ptrdiff_t>(offset));
  return content;
}

Bytes elfKernel() {
  return test::makeElf32(kKernel + 0x20, {{kKernel, kKernel, withHeader(3000, 16, test::multibootHeader(3)), 9000}});
}

TEST(Multiboot, ElfKernelGetsMagicInformationAndMap) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(elfKernel(), "x y"));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->gpr[x86::rax], 0x2badb002u);
  EXPECT_EQ(boot->rip, kKernel + 0x20);
  EXPECT_EQ(boot->cr0 & ~x86::cr0::et, x86::cr0::pe);
  EXPECT_TRUE(boot->segment[x86::cs].big());
  EXPECT_FALSE(boot->segment[x86::cs].longMode());
  std::uint64_t info = boot->gpr[x86::rbx];
  auto flags = readAt<std::uint32_t>(*memory, info);
  EXPECT_EQ(flags, 1u | 1u << 2 | 1u << 3 | 1u << 6 | 1u << 9);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 4), 639u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 8), 63u * 1024);
  EXPECT_EQ(test::readText(*memory, readAt<std::uint32_t>(*memory, info + 16)), "kernel x y");
  EXPECT_EQ(test::readText(*memory, readAt<std::uint32_t>(*memory, info + 64)), "lodge");
  std::uint64_t map = readAt<std::uint32_t>(*memory, info + 48);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, info + 44), 4u * 24);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, map), 20u);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, map + 24 * 2 + 4), 0x100000u);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, map + 24 * 2 + 12), 63_MiB);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, map + 24 * 2 + 20), 1u);
}

TEST(Multiboot, ModulesArePageAlignedAboveTheKernelInOrder) {
  auto memory = test::ram(64_MiB);
  BootRequest request = test::request(elfKernel());
  request.modules.push_back({ImageFile::fromBytes("one", test::pattern(5000, 1)), "one x=1"});
  request.modules.push_back({ImageFile::fromBytes("none", {}), "none"});
  request.modules.push_back({ImageFile::fromBytes("two", test::pattern(10, 2)), "two"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot);
  std::uint64_t info = boot->gpr[x86::rbx];
  ASSERT_EQ(readAt<std::uint32_t>(*memory, info + 20), 3u);
  std::uint64_t list = readAt<std::uint32_t>(*memory, info + 24);
  std::uint32_t previous = kKernel + 9000;
  for (unsigned i = 0; i < 3; ++i) {
    auto start = readAt<std::uint32_t>(*memory, list + i * 16), end = readAt<std::uint32_t>(*memory, list + i * 16 + 4);
    EXPECT_EQ(start % 4096, 0u);
    EXPECT_GE(start, previous);
    EXPECT_EQ(end - start, request.modules[i].file->size());
    EXPECT_EQ(test::readText(*memory, readAt<std::uint32_t>(*memory, list + i * 16 + 8)), request.modules[i].arguments);
    previous = end;
  }
  EXPECT_EQ(test::readGuest(*memory, readAt<std::uint32_t>(*memory, list), 5000), test::pattern(5000, 1));
}

TEST(Multiboot, HigherHalfEntryIsTranslated) {
  auto memory = test::ram(64_MiB);
  Bytes kernel =
      test::makeElf32(0xc0400040, {{kKernel, 0xc0400000, withHeader(3000, 0, test::multibootHeader(0)), 3000}});
  auto boot = loadKernel(*memory, test::request(kernel));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, kKernel + 0x40);
}

// A flat file: header at 64, loaded from byte 32 to 0x200000, 100 bytes of it, zeros up to 200.
Bytes flatKernel(std::vector<std::uint32_t> addresses = {0x200020, 0x200000, 0x200064, 0x2000c8, 0x200010}) {
  return withHeader(4000, 64, test::multibootHeader(1 << 16, addresses));
}

TEST(Multiboot, AddressFieldsLoadAnyFile) {
  auto memory = test::ram(64_MiB);
  ASSERT_TRUE(memory->fill(Gpa{0x200000}, std::byte{0xee}, 300));
  Bytes kernel = flatKernel();
  auto boot = loadKernel(*memory, test::request(kernel));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, 0x200010u);
  EXPECT_EQ(test::readGuest(*memory, 0x200000, 100), Bytes(kernel.begin() + 32, kernel.begin() + 132));
  EXPECT_EQ(test::readGuest(*memory, 0x200064, 100), Bytes(100));
  EXPECT_EQ(readAt<std::uint8_t>(*memory, 0x2000c8), 0xee);
}

TEST(Multiboot, LoadEndOfZeroMeansTheWholeFile) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(flatKernel({0x200020, 0x200000, 0, 0, 0x200010})));
  ASSERT_TRUE(boot) << boot.error().message();
  Bytes kernel = flatKernel({0x200020, 0x200000, 0, 0, 0x200010});
  EXPECT_EQ(test::readGuest(*memory, 0x200000, 3968), Bytes(kernel.begin() + 32, kernel.end()));
}

std::string failure(const Bytes& kernel, ErrorKind kind) {
  auto memory = test::ram(64_MiB);
  auto refused = loadKernel(*memory, test::request(kernel));
  if (refused) return "loaded";
  EXPECT_EQ(refused.error().kind(), kind);
  return refused.error().message();
}

TEST(Multiboot, Refusals) {
  EXPECT_THAT(failure(flatKernel({0x200000, 0x200020, 0, 0, 0x200010}), ErrorKind::corrupt),
              HasSubstr("load_addr is above header_addr"));
  EXPECT_THAT(failure(flatKernel({0x200041, 0x200000, 0, 0, 0x200010}), ErrorKind::corrupt),
              HasSubstr("before the file's beginning"));
  EXPECT_THAT(failure(flatKernel({0x200020, 0x200000, 0x1fffff, 0, 0x200010}), ErrorKind::corrupt),
              HasSubstr("below load_addr"));
  EXPECT_THAT(failure(flatKernel({0x200020, 0x200000, 0x210000, 0, 0x200010}), ErrorKind::corrupt),
              HasSubstr("is truncated"));
  EXPECT_THAT(failure(flatKernel({0x200020, 0x200000, 0x200064, 0x200001, 0x200010}), ErrorKind::corrupt),
              HasSubstr("bss_end_addr"));
  EXPECT_THAT(failure(flatKernel({0x200020, 0x200000, 0x200064, 0, 0x200064}), ErrorKind::corrupt),
              HasSubstr("entry_addr"));
  EXPECT_THAT(failure(flatKernel({0x200020, 0x200000, 0x200064, 0xffffffff, 0x200010}), ErrorKind::invalidArgument),
              HasSubstr("kernel 'kernel' at 0x200000"));
  Bytes demands =
      test::makeElf32(kKernel, {{kKernel, kKernel, withHeader(3000, 16, test::multibootHeader(0x48)), 3000}});
  EXPECT_THAT(failure(demands, ErrorKind::unsupported), HasSubstr("flags 0x48"));
  Bytes entry = test::makeElf32(0x10, {{kKernel, kKernel, withHeader(3000, 16, test::multibootHeader(0)), 3000}});
  EXPECT_THAT(failure(entry, ErrorKind::corrupt), HasSubstr("its entry 0x10 outside"));
  EXPECT_THAT(failure(withHeader(4000, 64, test::multibootHeader(0)), ErrorKind::corrupt),
              HasSubstr("and is no ELF file"));
}

TEST(Multiboot, HeaderMustBeInTheFirst8KiBAndAddUp) {
  auto elf = [](std::size_t offset, Bytes header) {
    return test::makeElf32(kKernel, {{kKernel, kKernel, withHeader(8192, offset, header), 8192}});
  };
  EXPECT_THAT(failure(elf(4096 - 12, test::multibootHeader(0)), ErrorKind::internal), "loaded");
  EXPECT_THAT(failure(elf(4096, test::multibootHeader(0)), ErrorKind::invalidArgument), HasSubstr("neither"));
  Bytes wrong = test::multibootHeader(0);
  wrong[8] ^= std::byte{1};
  EXPECT_THAT(failure(elf(16, wrong), ErrorKind::invalidArgument), HasSubstr("neither"));
}

TEST(Multiboot, A64BitKernelWithBothHeadersUsesPvh) {
  auto memory = test::ram(64_MiB);
  Bytes kernel = test::makeElf64(kKernel, {{kKernel, kKernel, withHeader(3000, 16, test::multibootHeader(0)), 3000}},
                                 test::pvhNote(kKernel + 8));
  EXPECT_EQ(*detectKernel(*ImageFile::fromBytes("k", kernel)), KernelKind::pvh);
  Bytes kernel32 = test::makeElf32(kKernel, {{kKernel, kKernel, withHeader(3000, 16, test::multibootHeader(0)), 3000}},
                                   test::pvhNote(kKernel + 8));
  EXPECT_EQ(*detectKernel(*ImageFile::fromBytes("k", kernel32)), KernelKind::multiboot);
}

}  // namespace
}  // namespace lodge::firmware
