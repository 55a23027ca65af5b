// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

using test::Bytes;
using test::readAt;
using testing::HasSubstr;

constexpr unsigned kParamsE820Count = 0x1e8, kParamsE820 = 0x2d0;

std::uint64_t bootParams(const BootState& boot) {
  return boot.gpr[x86::rsi];
}

TEST(BzImage, EntersLongModeAt0x200OfThePreferredAddress) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(test::makeBzImage()));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, 0x1000200u);
  EXPECT_EQ(boot->rflags, 2u);
  EXPECT_EQ(boot->cr0 & (x86::cr0::pe | x86::cr0::pg), x86::cr0::pe | x86::cr0::pg);
  EXPECT_EQ(boot->cr4, x86::cr4::pae);
  EXPECT_EQ(boot->efer, x86::efer::lme | x86::efer::lma);
  EXPECT_EQ(boot->segment[x86::cs].selector, 0x10);
  EXPECT_TRUE(boot->segment[x86::cs].longMode());
  EXPECT_EQ(boot->segment[x86::ss].selector, 0x18);
  EXPECT_EQ(test::readGuest(*memory, 0x1000000, 65536), test::pattern(65536, 3));
}

TEST(BzImage, GdtInMemoryAgreesWithTheSelectors) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(test::makeBzImage()));
  ASSERT_TRUE(boot);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, boot->gdtr.base + 0x10), 0x00af9b000000ffffu);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, boot->gdtr.base + 0x18), 0x00cf93000000ffffu);
}

// Walks the tables as the CPU would; 2 MiB pages.
std::uint64_t translate(const GuestMemory& memory, std::uint64_t cr3, std::uint64_t linear) {
  std::uint64_t entry = readAt<std::uint64_t>(memory, cr3 + ((linear >> 39) & 511) * 8);
  if (!(entry & 1)) return ~0ull;
  entry = readAt<std::uint64_t>(memory, (entry & ~0xfffull) + ((linear >> 30) & 511) * 8);
  if (!(entry & 1)) return ~0ull;
  entry = readAt<std::uint64_t>(memory, (entry & ~0xfffull) + ((linear >> 21) & 511) * 8);
  if (!(entry & 1) || !(entry & 0x80)) return ~0ull;
  return (entry & ~0x1fffffull) | (linear & 0x1fffff);
}

TEST(BzImage, PageTablesMapFourGiBOneToOne) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(test::makeBzImage()));
  ASSERT_TRUE(boot);
  for (std::uint64_t a : {std::uint64_t{0}, std::uint64_t{0x1000200}, 3_GiB, 4_GiB - 1})
    EXPECT_EQ(translate(*memory, boot->cr3, a), a);
  EXPECT_EQ(translate(*memory, boot->cr3, 4_GiB), ~0ull);
}

TEST(BzImage, BootParametersCarryHeaderCommandLineMapAndRsdp) {
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(test::makeBzImage(), "quiet root=/dev/vda"));
  ASSERT_TRUE(boot);
  std::uint64_t params = bootParams(*boot);
  EXPECT_EQ(params % kPageSize, 0u);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, params + 0x202), 0x53726448u);
  EXPECT_EQ(readAt<std::uint8_t>(*memory, params + 0x210), 0xff);
  EXPECT_EQ(readAt<std::uint8_t>(*memory, params + 0x1ef), 0) << "sentinel";
  EXPECT_EQ(test::readText(*memory, readAt<std::uint32_t>(*memory, params + 0x228)), "quiet root=/dev/vda");
  EXPECT_EQ(readAt<std::uint64_t>(*memory, params + 0x070), 0xe0000u);
  EXPECT_EQ(test::readText(*memory, 0xe0000).substr(0, 8), "RSD PTR ");
  ASSERT_EQ(readAt<std::uint8_t>(*memory, params + kParamsE820Count), 4);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, params + kParamsE820 + 40), 0x100000u);
  EXPECT_EQ(readAt<std::uint64_t>(*memory, params + kParamsE820 + 48), 63_MiB);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, params + kParamsE820 + 56), 1u);
}

TEST(BzImage, RandomSeedIsThereAndDiffersEachTime) {
  auto memory = test::ram(64_MiB);
  Bytes seeds[2];
  for (Bytes& seed : seeds) {
    auto boot = loadKernel(*memory, test::request(test::makeBzImage()));
    ASSERT_TRUE(boot);
    std::uint64_t entry = readAt<std::uint64_t>(*memory, bootParams(*boot) + 0x250);
    EXPECT_EQ(readAt<std::uint64_t>(*memory, entry), 0u) << "end of the list";
    EXPECT_EQ(readAt<std::uint32_t>(*memory, entry + 8), 9u);
    EXPECT_EQ(readAt<std::uint32_t>(*memory, entry + 12), 32u);
    seed = test::readGuest(*memory, entry + 16, 32);
  }
  EXPECT_NE(seeds[0], seeds[1]);
}

TEST(BzImage, InitrdsAreJoinedAtTheTopEachAtAMultipleOfFour) {
  auto memory = test::ram(64_MiB);
  BootRequest request = test::request(test::makeBzImage());
  request.modules.push_back({ImageFile::fromBytes("a", test::pattern(4097, 5)), "a"});
  request.modules.push_back({ImageFile::fromBytes("b", test::pattern(100, 9)), "b"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot);
  std::uint64_t base = readAt<std::uint32_t>(*memory, bootParams(*boot) + 0x218);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, bootParams(*boot) + 0x21c), 4200u);
  EXPECT_EQ(base, 64_MiB - 8192);
  EXPECT_EQ(test::readGuest(*memory, base, 4097), test::pattern(4097, 5));
  EXPECT_EQ(test::readGuest(*memory, base + 4097, 3), Bytes(3));
  EXPECT_EQ(test::readGuest(*memory, base + 4100, 100), test::pattern(100, 9));
}

TEST(BzImage, InitrdStaysBelowInitrdAddrMax) {
  auto memory = test::ram(64_MiB);
  Bytes kernel = test::makeBzImage();
  test::store<std::uint32_t>(kernel, 0x22c, 0x2ffffff);
  BootRequest request = test::request(kernel);
  request.modules.push_back({ImageFile::fromBytes("a", test::pattern(4096, 5)), "a"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, bootParams(*boot) + 0x218), 0x2fff000u);
}

TEST(BzImage, InitrdGoesAbove4GiBOnlyIfTheKernelCan) {
  auto memory = test::ram(4_GiB);
  Bytes kernel = test::makeBzImage();
  test::store<std::uint32_t>(kernel, 0x260,
                             0xbe000000);  // init_size: leaves no room below 3 GiB but for the information
  test::store<std::uint32_t>(kernel, 0x22c, 0xffffffff);
  BootRequest request = test::request(kernel);
  request.modules.push_back({ImageFile::fromBytes("big", Bytes(40_MiB, std::byte{0x5a})), "big"});
  auto boot = loadKernel(*memory, request);
  ASSERT_TRUE(boot) << boot.error().message();
  std::uint64_t params = bootParams(*boot);
  EXPECT_EQ(readAt<std::uint32_t>(*memory, params + 0x0c0), 1u) << "ext_ramdisk_image";
  EXPECT_EQ(readAt<std::uint32_t>(*memory, params + 0x218), static_cast<std::uint32_t>(1_GiB - 40_MiB));
  EXPECT_EQ(readAt<std::uint8_t>(*memory, 5_GiB - 1), 0x5a);

  test::store<std::uint16_t>(kernel, 0x236, 0x01);
  request.kernel = ImageFile::fromBytes("kernel", kernel);
  auto refused = loadKernel(*memory, request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(refused.error().message(),
            "load kernel: initrd 'big' (40960 KiB) does not fit into 4096 MiB of guest memory");
}

TEST(BzImage, KernelAbove4GiBGetsItsOwnMap) {
  auto memory = test::ram(8_GiB);
  Bytes kernel = test::makeBzImage();
  test::store<std::uint32_t>(kernel, 0x260, 0xffe00000);
  auto boot = loadKernel(*memory, test::request(kernel));
  ASSERT_TRUE(boot) << boot.error().message();
  EXPECT_EQ(boot->rip, 4_GiB + 0x200);
  for (std::uint64_t a : {std::uint64_t{0x2000}, 4_GiB, 8_GiB - 0x200000 - 1})
    EXPECT_EQ(translate(*memory, boot->cr3, a), a);
}

TEST(BzImage, NonRelocatableKernelGoesToItsAddressOrNowhere) {
  Bytes kernel = test::makeBzImage();
  test::store<std::uint8_t>(kernel, 0x234, 0);
  test::store<std::uint64_t>(kernel, 0x258, 0x2000000);
  auto memory = test::ram(64_MiB);
  auto boot = loadKernel(*memory, test::request(kernel));
  ASSERT_TRUE(boot);
  EXPECT_EQ(boot->rip, 0x2000200u);
  auto small = test::ram(32_MiB);
  auto refused = loadKernel(*small, test::request(kernel));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("kernel 'kernel' at 0x2000000"));
  EXPECT_THAT(refused.error().hint(), HasSubstr("-m"));
}

TEST(BzImage, RefusesA32BitKernel) {
  Bytes kernel = test::makeBzImage();
  test::store<std::uint16_t>(kernel, 0x236, 0);
  auto memory = test::ram(64_MiB);
  auto refused = loadKernel(*memory, test::request(kernel));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(refused.error().message(), "load kernel: 'kernel' is a 32-bit Linux kernel");
  EXPECT_EQ(refused.error().hint(), "use a 64-bit (amd64) kernel");
}

TEST(BzImage, RefusesAnOldProtocol) {
  Bytes kernel = test::makeBzImage();
  test::store<std::uint16_t>(kernel, 0x206, 0x0209);
  auto memory = test::ram(64_MiB);
  auto refused = loadKernel(*memory, test::request(kernel));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_THAT(refused.error().message(), HasSubstr("boot protocol 2.09"));
}

TEST(BzImage, RefusesATruncatedFile) {
  Bytes kernel = test::makeBzImage();
  kernel.resize(kernel.size() - 1);
  auto memory = test::ram(64_MiB);
  auto refused = loadKernel(*memory, test::request(kernel));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::corrupt);
  EXPECT_EQ(refused.error().message(),
            "load kernel: 'kernel' is truncated: its header promises 66560 bytes, it has 66559");
  kernel.resize(600);
  auto cut = loadKernel(*memory, test::request(kernel));
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().kind(), ErrorKind::corrupt);
}

TEST(BzImage, RefusesATooLongCommandLine) {
  auto memory = test::ram(64_MiB);
  auto refused = loadKernel(*memory, test::request(test::makeBzImage(), std::string(2048, 'x')));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("the command line has 2048 bytes, 'kernel' takes at most 2047"));
}

TEST(BzImage, RefusesImpossibleAlignment) {
  Bytes kernel = test::makeBzImage();
  auto memory = test::ram(64_MiB);
  for (std::uint32_t alignment : {0u, 3u, 0x80000000u}) {
    test::store<std::uint32_t>(kernel, 0x230, alignment);
    auto refused = loadKernel(*memory, test::request(kernel));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::corrupt);
  }
}

}  // namespace
}  // namespace lodge::firmware
