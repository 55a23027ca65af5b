// SPDX-License-Identifier: Apache-2.0
#include "net/offload.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/bytes.h"

namespace lodge {
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

/// A TCP segment in IPv4 with both checksums, and the length that it has.
bool isSealed(std::span<const std::uint8_t> f) {
  std::uint32_t pseudo = fold(f.subspan(26, 8)) + 6 + static_cast<std::uint32_t>(f.size() - 34);
  return loadBe<std::uint16_t>(&f[16]) == f.size() - 14 && fold(f.subspan(14, 20)) == 0xffff &&
         fold(f.subspan(34), pseudo) == 0xffff;
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
    EXPECT_TRUE(isSealed(f));
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

TEST(Segmentation, wholeSegmentsAreSealedAsTheyAre) {
  Bytes big = tcp4(40001);
  FrameOffload offload;
  offload.needsChecksum = true;
  offload.segmentation = 1;
  offload.segmentSize = 1460;
  ASSERT_TRUE(finishWhole(big, offload));
  EXPECT_EQ(big.size(), 54u + 40001);
  EXPECT_TRUE(isSealed(big));
  Bytes tooLarge = tcp4(65530);
  EXPECT_FALSE(finishWhole(tooLarge, offload)) << "more than an IPv4 packet can be";
}

/// Frames of the flow as a sender makes them: 1000 bytes each and one of 300, complete.
std::vector<Bytes> flow(unsigned frames) {
  Bytes all = tcp4(1000 * (frames - 1) + 300);
  all[34 + 13] = 0x10;
  FrameOffload offload;
  offload.needsChecksum = true;
  offload.segmentation = 1;
  offload.segmentSize = 1000;
  std::vector<Bytes> out;
  finishOffload(all, offload, [&](auto f) { out.emplace_back(f.begin(), f.end()); });
  return out;
}

struct Joined {
  Bytes frame;
  FrameOffload offload;
};

std::vector<Joined> join(const std::vector<Bytes>& frames) {
  std::vector<Joined> out;
  SegmentJoiner joiner([&](auto f, const FrameOffload& o) { out.push_back({{f.begin(), f.end()}, o}); });
  for (const Bytes& f : frames) joiner.add(f);
  joiner.flush();
  joiner.flush();
  return out;
}

TEST(SegmentJoiner, joinsWhatFollowsAndCutsToTheSameAgain) {
  std::vector<Bytes> frames = flow(20);
  std::vector<Joined> joined = join(frames);
  ASSERT_EQ(joined.size(), 1u);
  EXPECT_EQ(joined[0].offload.segmentation, 1);
  EXPECT_EQ(joined[0].offload.segmentSize, 1000);
  EXPECT_EQ(joined[0].frame.size(), 54u + 19300);
  std::vector<Bytes> again;
  ASSERT_TRUE(
      finishOffload(joined[0].frame, joined[0].offload, [&](auto f) { again.emplace_back(f.begin(), f.end()); }));
  EXPECT_EQ(again, frames);
  // The checksum field has the pseudo header's sum, from which a checksum of the whole would be made.
  std::uint32_t pseudo = fold(std::span(joined[0].frame).subspan(26, 8)) + 6 + 19320;
  while (pseudo >> 16 != 0) pseudo = (pseudo & 0xffff) + (pseudo >> 16);
  EXPECT_EQ(loadBe<std::uint16_t>(&joined[0].frame[50]), pseudo);
}

TEST(SegmentJoiner, leavesAloneWhatDoesNotFollow) {
  std::vector<Bytes> frames = flow(6);
  frames.erase(frames.begin() + 2);  // a gap
  std::vector<Joined> joined = join(frames);
  ASSERT_EQ(joined.size(), 2u);
  EXPECT_EQ(joined[0].frame.size(), 54u + 2000);
  EXPECT_EQ(joined[1].frame.size(), 54u + 2300);

  frames = flow(4);
  frames[1][34 + 13] |= 8;  // PSH ends what is joined
  joined = join(frames);
  ASSERT_EQ(joined.size(), 2u);
  EXPECT_EQ(joined[0].frame[34 + 13], 0x18);

  for (std::size_t at :
       {std::size_t{15}, std::size_t{22}, std::size_t{26}, std::size_t{35}, std::size_t{42}, std::size_t{48}}) {
    frames = flow(3);
    frames[1][at] ^= 1;  // TOS, TTL, address, port, acknowledgement, window
    joined = join(frames);
    EXPECT_EQ(joined.size(), 3u) << at;
    EXPECT_EQ(joined[1].frame, frames[1]) << at;
    EXPECT_EQ(joined[1].offload.segmentation, 0);
  }
  frames = flow(3);
  frames.insert(frames.begin() + 1, Bytes(60, 1));  // another protocol comes through in its place
  joined = join(frames);
  ASSERT_EQ(joined.size(), 3u);
  EXPECT_EQ(joined[1].frame, frames[1]);
}

TEST(SegmentJoiner, joinsOfOthersOnlyWhatIsRight) {
  std::vector<Bytes> frames = flow(6);
  frames[2][100] ^= 1;  // broken on its way
  std::vector<Joined> out;
  SegmentJoiner joiner([&](auto f, const FrameOffload& o) { out.push_back({{f.begin(), f.end()}, o}); });
  for (const Bytes& f : frames) joiner.add(f, {});
  joiner.flush();
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[1].frame, frames[2]) << "as broken as it came";
  EXPECT_EQ(out[2].frame.size(), 54u + 2300);

  // A sender that leaves its checksums to its card: one frame alone stays as it is.
  FrameOffload partial{.needsChecksum = true, .checksumStart = 34, .checksumOffset = 16};
  out.clear();
  frames = flow(3);
  joiner.add(frames[0], partial);
  joiner.add(frames[1], partial);
  joiner.flush();
  joiner.add(frames[2], partial);
  joiner.flush();
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].offload.segmentation, 1);
  EXPECT_EQ(out[1].frame, frames[2]);
  EXPECT_TRUE(out[1].offload.needsChecksum);
  EXPECT_EQ(out[1].offload.segmentation, 0);
}

TEST(SegmentJoiner, neverExceedsAPacket) {
  std::vector<Joined> joined = join(flow(200));
  std::size_t payload = 0;
  for (const Joined& j : joined) {
    EXPECT_LE(j.frame.size(), 65535u);
    payload += j.frame.size() - 54;
  }
  EXPECT_EQ(payload, 199300u);
}

}  // namespace
}  // namespace lodge
