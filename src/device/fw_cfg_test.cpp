// SPDX-License-Identifier: Apache-2.0
#include "device/fw_cfg.h"

#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"

namespace lodge {
namespace {

class FwCfgTest : public testing::Test {
 protected:
  std::string read(std::uint16_t key, unsigned length) {
    device_.write(0, 2, key);
    std::string bytes;
    for (unsigned i = 0; i < length; ++i) bytes.push_back(static_cast<char>(device_.read(1, 1)));
    return bytes;
  }
  /// Runs a DMA and returns what the device left in control.
  std::uint32_t dma(std::uint32_t control, std::uint32_t length, std::uint64_t address,
                    std::uint64_t descriptor = 0x1000) {
    std::uint32_t words[4] = {__builtin_bswap32(control), __builtin_bswap32(length),
                              __builtin_bswap32(static_cast<std::uint32_t>(address >> 32)),
                              __builtin_bswap32(static_cast<std::uint32_t>(address))};
    EXPECT_TRUE(memory_->writeObject(Gpa{descriptor}, words));
    device_.write(4, 4, __builtin_bswap32(static_cast<std::uint32_t>(descriptor >> 32)));
    device_.write(8, 4, __builtin_bswap32(static_cast<std::uint32_t>(descriptor)));
    std::uint32_t left = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{descriptor}, left));
    return __builtin_bswap32(left);
  }
  std::string guest(std::uint64_t at, std::size_t length) {
    std::string text(length, '?');
    EXPECT_TRUE(memory_->read(Gpa{at}, std::as_writable_bytes(std::span(text))));
    return text;
  }

  std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(2_MiB);
  FwCfg device_{*memory_};
};

using namespace std::string_literals;

TEST_F(FwCfgTest, SignatureAndInterface) {
  EXPECT_EQ(read(FwCfg::signature, 6), "QEMU\0\0"s) << "zeros past the end";
  EXPECT_EQ(read(FwCfg::interfaceId, 4), "\3\0\0\0"s);
  EXPECT_EQ(device_.read(4, 4), 0x554d4551u);
  EXPECT_EQ(device_.read(8, 4), 0x47464320u);
}

TEST_F(FwCfgTest, IntegersAreLittleEndianAndSelectionRewinds) {
  ASSERT_TRUE(device_.addInteger(FwCfg::cpuCount, 0x104, 2));
  ASSERT_TRUE(device_.addInteger(FwCfg::ramSize, 1_GiB, 8));
  EXPECT_EQ(read(FwCfg::cpuCount, 3), "\4\1\0"s);
  EXPECT_EQ(read(FwCfg::cpuCount, 1), "\4"s);
  EXPECT_EQ(read(FwCfg::ramSize, 8), "\0\0\0\x40\0\0\0\0"s);
}

TEST_F(FwCfgTest, UnknownKeysReadAsZero) {
  EXPECT_EQ(read(0x7fff, 3), "\0\0\0"s);
  EXPECT_EQ(read(0xffff, 3), "\0\0\0"s);
}

TEST_F(FwCfgTest, DirectoryIsSortedByName) {
  ASSERT_TRUE(device_.addFile("opt/b", {1, 2, 3}));
  ASSERT_TRUE(device_.addFile("etc/a", {9}));
  std::string directory = read(FwCfg::fileDirectory, 4 + 2 * 64);
  EXPECT_EQ(directory.substr(0, 4), "\0\0\0\2"s);
  EXPECT_EQ(directory.substr(4, 8), "\0\0\0\1\0\x21\0\0"s);
  EXPECT_STREQ(directory.c_str() + 12, "etc/a");
  EXPECT_EQ(directory.substr(68, 8), "\0\0\0\3\0\x20\0\0"s);
  EXPECT_STREQ(directory.c_str() + 76, "opt/b");
  EXPECT_EQ(read(0x20, 4), "\1\2\3\0"s);
}

TEST_F(FwCfgTest, BadRegistrationsAreRefused) {
  EXPECT_EQ(device_.addFile("", {}).error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(device_.addFile(std::string(56, 'x'), {}).error().kind(), ErrorKind::invalidArgument);
  EXPECT_TRUE(device_.addFile(std::string(55, 'x'), {}));
  EXPECT_EQ(device_.addFile(std::string(55, 'x'), {}).error().kind(), ErrorKind::alreadyExists);
  EXPECT_EQ(device_.addItem(FwCfg::fileDirectory, {}).error().kind(), ErrorKind::invalidArgument);
}

TEST_F(FwCfgTest, DmaReadsSelectedItemAndGoesOnWhereItStopped) {
  ASSERT_TRUE(device_.addFile("f", {'a', 'b', 'c', 'd'}));
  EXPECT_EQ(dma(0x20 << 16 | 8 | 2, 2, 0x2000), 0u);
  EXPECT_EQ(guest(0x2000, 2), "ab");
  EXPECT_EQ(dma(2, 4, 0x2000), 0u);
  EXPECT_EQ(guest(0x2000, 4), "cd\0\0"s);
}

TEST_F(FwCfgTest, DmaSkips) {
  ASSERT_TRUE(device_.addFile("f", {'a', 'b', 'c', 'd'}));
  EXPECT_EQ(dma(0x20 << 16 | 8 | 4, 3, 0), 0u);
  EXPECT_EQ(device_.read(1, 1), 'd');
  EXPECT_EQ(dma(4, 0xffffffff, 0), 0u);
  EXPECT_EQ(device_.read(1, 1), 0u);
}

TEST_F(FwCfgTest, HostileDmaGetsAnErrorAndTouchesNothing) {
  EXPECT_EQ(dma(8 | 2, 0x1000, 2_MiB - 0x10), 1u) << "runs off RAM";
  EXPECT_EQ(dma(8 | 2, 0xffffffff, 0), 1u);
  EXPECT_EQ(dma(8 | 2, 4, ~0ull - 1), 1u);
  EXPECT_EQ(dma(8 | 16, 4, 0x2000), 1u) << "items are read-only";
  for (std::uint64_t descriptor : {2_MiB - 8, ~std::uint64_t{0}, std::uint64_t{0xfffffffffffffff0}}) {
    device_.write(4, 4, __builtin_bswap32(static_cast<std::uint32_t>(descriptor >> 32)));
    device_.write(8, 4, __builtin_bswap32(static_cast<std::uint32_t>(descriptor)));
  }
}

TEST_F(FwCfgTest, DmaOntoItsOwnDescriptorEndsWithTheStatus) {
  EXPECT_EQ(dma(8 | 2, 16, 0x1000), 0u);
  EXPECT_EQ(guest(0x1004, 4), "\0\0\0\0"s);
}

TEST_F(FwCfgTest, EveryOffsetAndSizeIsAnswered) {
  for (std::uint64_t offset = 0; offset < FwCfg::kPorts; ++offset) {
    for (unsigned size : {1u, 2u, 4u}) {
      if (offset + size > FwCfg::kPorts) continue;
      device_.write(offset, size, ~0ull);
      device_.read(offset, size);
    }
  }
  device_.reset();
  EXPECT_EQ(device_.read(1, 1), 'Q');
}

}  // namespace
}  // namespace lodge
