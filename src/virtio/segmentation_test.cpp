// SPDX-License-Identifier: Apache-2.0
#include "virtio/segmentation.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/bytes.h"

namespace lodge::virtio {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t fold(std::span<const std::uint8_t> b, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < b.size(); ++i) sum += i % 2 == 0 ? b[i] << 8 : b[i];
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

Bytes tcp4(std::size_t payload) {
  Bytes f(14 + 20 + 20 + payload);
  f[12] = 8;
  f[14] = 0x45;
  f[14 + 9] = 6;
  f[14 + 12] = 10;
  f[14 + 16] = 11;
  f[34 + 12] = 0x50;
  f[34 + 13] = 0x19;  // ACK, PSH, FIN
  for (std::size_t i = 0; i < payload; ++i) f[54 + i] = static_cast<std::uint8_t>(i * 7);
  return f;
}

TEST(Segmentation, cutsTcpAndSealsEachFrame) {
  Bytes big = tcp4(4000);
  FrameOffload offload;
  offload.needsChecksum = true;
  offload.segmentation = 1;
  offload.segmentSize = 1460;
  std::vector<Bytes> frames;
  ASSERT_TRUE(finishOffload(big, offload, [&](auto f) { frames.emplace_back(f.begin(), f.end()); }));
  ASSERT_EQ(frames.size(), 3u);
  std::uint32_t sequence = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    std::span<const std::uint8_t> f = frames[i];
    EXPECT_EQ(loadBe<std::uint16_t>(&f[16]), f.size() - 14);
    EXPECT_EQ(fold(f.subspan(14, 20)), 0xffffu) << "IPv4 header";
    std::uint32_t pseudo = fold(f.subspan(26, 8)) + 6 + static_cast<std::uint32_t>(f.size() - 34);
    EXPECT_EQ(fold(f.subspan(34), pseudo), 0xffffu) << "TCP";
    EXPECT_EQ(loadBe<std::uint32_t>(&f[38]), sequence);
    EXPECT_EQ(f[34 + 13], i == 2 ? 0x19 : 0x10);
    sequence += static_cast<std::uint32_t>(f.size() - 54);
  }
  EXPECT_EQ(sequence, 4000u);
}

TEST(Segmentation, hostileHeadersEmitNothing) {
  FrameOffload offload;
  offload.segmentation = 1;
  int emitted = 0;
  auto count = [&](auto) { ++emitted; };
  offload.segmentSize = 0;
  EXPECT_FALSE(finishOffload(tcp4(100), offload, count));
  offload.segmentSize = 10;
  EXPECT_FALSE(finishOffload(Bytes(20), offload, count));
  Bytes bad = tcp4(100);
  bad[14] = 0x4f;
  bad[34 + 12] = 0xf0;
  Bytes shortened(bad.begin(), bad.begin() + 70);
  EXPECT_FALSE(finishOffload(shortened, offload, count));
  offload = {};
  offload.needsChecksum = true;
  offload.checksumStart = 65535;
  EXPECT_FALSE(finishOffload(tcp4(100), offload, count));
  EXPECT_EQ(emitted, 0);
}

}  // namespace
}  // namespace lodge::virtio
