// SPDX-License-Identifier: Apache-2.0
#include "image/vhd_layout.h"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace lodge::image::vhd {

namespace {

constexpr std::int64_t kEpoch = 946684800;  // 2000-01-01T00:00:00Z

template <class T>
std::uint32_t sumOf(const T& object) {
  std::uint32_t sum = 0;
  for (std::byte b : bytesOf(object)) sum += static_cast<std::uint32_t>(b);
  return ~sum;
}

}  // namespace

Chs geometryOf(std::uint64_t sectors) {
  sectors = std::min(sectors, kMaxChsSectors);
  std::uint64_t perTrack = 17, heads = 0, tracks = 0;
  if (sectors >= std::uint64_t{65535} * 16 * 63) {
    perTrack = 255;
    heads = 16;
    tracks = sectors / perTrack;
  } else {
    tracks = sectors / perTrack;
    heads = std::max<std::uint64_t>((tracks + 1023) / 1024, 4);
    // Larger disks get longer tracks: 17 sectors up to 1024 cylinders of 16 heads, then 31, then 63.
    for (std::uint64_t longer : {31, 63}) {
      if (tracks < heads * 1024 && heads <= 16) break;
      perTrack = longer;
      heads = 16;
      tracks = sectors / perTrack;
    }
  }
  return {static_cast<std::uint16_t>(tracks / heads), static_cast<std::uint8_t>(heads),
          static_cast<std::uint8_t>(perTrack)};
}

std::uint64_t roundToGeometry(std::uint64_t sectors) {
  if (sectors > kMaxChsSectors) return sectors;
  std::uint64_t tried = sectors;
  while (geometryOf(tried).total() < sectors && tried < kMaxChsSectors) ++tried;
  return std::max(sectors, geometryOf(tried).total());
}

std::uint32_t checksumOf(Footer footer) {
  footer.checksum = 0;
  return sumOf(footer);
}

std::uint32_t checksumOf(Header header) {
  header.checksum = 0;
  return sumOf(header);
}

bool isGood(const Footer& footer) {
  return std::memcmp(footer.cookie.data(), "conectix", 8) == 0 && footer.checksum == checksumOf(footer);
}

bool isGood(const Header& header) {
  return std::memcmp(header.cookie.data(), "cxsparse", 8) == 0 && header.checksum == checksumOf(header);
}

void setSize(Footer& footer, std::uint64_t bytes) {
  Chs chs = geometryOf(bytes / kSector);
  footer.currentBytes = bytes;
  footer.cylinders = chs.cylinders;
  footer.heads = chs.heads;
  footer.sectorsPerTrack = chs.sectors;
  footer.checksum = checksumOf(footer);
}

Footer makeFooter(std::uint64_t bytes, Type type, bool exact) {
  Footer footer{};
  std::memcpy(footer.cookie.data(), "conectix", 8);
  footer.features = 2;  // the bit that is always set
  footer.version = 0x00010000;
  footer.dataOffset = type == kFixed ? kNoOffset : kSector;
  footer.timestamp = static_cast<std::uint32_t>(std::time(nullptr) - kEpoch);
  // Readers tell by the creator whether the geometry or the size counts: Hyper-V's is exact, Virtual PC's rounded.
  std::memcpy(footer.creator.data(), exact ? "win " : "vpc ", 4);
  footer.creatorVersion = exact ? 0x00060001 : 0x00050003;
  std::memcpy(footer.creatorHost.data(), "Wi2k", 4);
  footer.originalBytes = bytes;
  footer.type = type;
  footer.uuid = randomUuid(false);
  setSize(footer, bytes);
  return footer;
}

}  // namespace lodge::image::vhd
