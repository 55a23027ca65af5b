// SPDX-License-Identifier: Apache-2.0
#include "virtio/edid.h"

#include <algorithm>
#include <string_view>

namespace lodge::virtio {

namespace {
using Edid = std::array<std::uint8_t, 128>;
constexpr std::size_t kFirstDescriptor = 54, kDescriptorSize = 18;

std::uint8_t low(std::uint32_t value) {
  return static_cast<std::uint8_t>(value);
}
std::uint8_t nibbles(std::uint32_t upper, std::uint32_t lower) {
  return static_cast<std::uint8_t>((upper >> 8 & 15) << 4 | (lower >> 8 & 15));
}

/// Detailed timing (3.10.2).
void describeMode(std::uint8_t* d, std::uint32_t width, std::uint32_t height) {
  constexpr std::uint32_t kBlankX = 160, kFrontX = 48, kSyncX = 32;  // CVT's reduced blanking
  constexpr std::uint32_t kBlankY = 40, kFrontY = 3, kSyncY = 6;
  constexpr std::uint32_t kMaxClock = 0xffff;  // in 10 kHz
  std::uint64_t clock = std::uint64_t{width + kBlankX} * (height + kBlankY) * 60 / 10'000;
  auto clock10kHz = static_cast<std::uint32_t>(std::min<std::uint64_t>(clock, kMaxClock));
  std::uint32_t widthMm = width * 254 / 960, heightMm = height * 254 / 960;  // 96 dots an inch
  d[0] = low(clock10kHz);
  d[1] = low(clock10kHz >> 8);
  d[2] = low(width);
  d[3] = low(kBlankX);
  d[4] = nibbles(width, kBlankX);
  d[5] = low(height);
  d[6] = low(kBlankY);
  d[7] = nibbles(height, kBlankY);
  d[8] = low(kFrontX);
  d[9] = low(kSyncX);
  d[10] = low(kFrontY << 4 | kSyncY);
  d[12] = low(widthMm);
  d[13] = low(heightMm);
  d[14] = nibbles(widthMm, heightMm);
  d[17] = 0x1a;  // digital separate sync, horizontal positive
}

/// A text descriptor (3.10.3): 0xfc the product's name.
void describeText(std::uint8_t* d, std::uint8_t tag, std::string_view text) {
  constexpr std::size_t kText = 5, kLength = 13;
  d[3] = tag;
  std::fill_n(d + kText, kLength, ' ');
  std::copy(text.begin(), text.end(), d + kText);
  if (text.size() < kLength) d[kText + text.size()] = '\n';
}

/// Range limits (3.10.3.3): 30 to 120 Hz, 15 to 200 kHz, 660 MHz.
void describeRanges(std::uint8_t* d) {
  constexpr std::uint8_t kRanges[] = {0, 0, 0, 0xfd, 0, 30, 120, 15, 200, 66, 1, '\n', ' ', ' ', ' ', ' ', ' ', ' '};
  std::copy(std::begin(kRanges), std::end(kRanges), d);
}
}  // namespace

Edid edidOf(std::uint32_t width, std::uint32_t height) {
  constexpr std::uint32_t kMaxSide = 4095;  // the fields have 12 bits
  width = std::min(width, kMaxSide);
  height = std::min(height, kMaxSide);
  Edid edid{};
  std::fill_n(edid.begin() + 1, 6, 0xff);
  constexpr std::uint32_t kMaker = ('L' - '@') << 10 | ('D' - '@') << 5 | ('G' - '@');
  edid[8] = kMaker >> 8;
  edid[9] = kMaker & 255;
  edid[10] = 1;            // product
  edid[16] = 1;            // made in the first week
  edid[17] = 2024 - 1990;  // of this year
  edid[18] = 1;            // version 1.4
  edid[19] = 4;
  edid[20] = 0xa5;                                     // digital, 8 bits a color, DisplayPort
  edid[21] = low(std::min(width * 254 / 9600, 255u));  // cm
  edid[22] = low(std::min(height * 254 / 9600, 255u));
  edid[23] = 120;   // gamma 2.2
  edid[24] = 0x06;  // sRGB; the first detailed timing is the native one
  constexpr std::uint8_t kSrgb[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
  std::copy(std::begin(kSrgb), std::end(kSrgb), edid.begin() + 25);
  edid[35] = 0x21;                           // established: 640x480 and 800x600 at 60 Hz
  edid[36] = 0x08;                           // 1024x768
  std::fill_n(edid.begin() + 38, 16, 0x01);  // no standard timings
  describeMode(&edid[kFirstDescriptor], width, height);
  describeRanges(&edid[kFirstDescriptor + kDescriptorSize]);
  describeText(&edid[kFirstDescriptor + 2 * kDescriptorSize], 0xfc, "Lodge");
  describeText(&edid[kFirstDescriptor + 3 * kDescriptorSize], 0xff, "1");
  unsigned sum = 0;
  for (std::uint8_t byte : edid) sum += byte;
  edid[127] = low(256 - sum % 256);
  return edid;
}

}  // namespace lodge::virtio
