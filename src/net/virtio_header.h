// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "net/backend.h"

namespace lodge {

/// struct virtio_net_hdr as Linux's tap devices, packet sockets and Lodge's port sockets put it before each frame: ten
/// bytes, little-endian (virtio 1.2, 5.1.6, without num_buffers).
inline constexpr std::size_t kVirtioHeaderSize = 10;
using VirtioHeader = std::array<std::uint8_t, kVirtioHeaderSize>;

inline VirtioHeader toHeader(const FrameOffload& offload) {
  VirtioHeader h{};
  h[0] = offload.needsChecksum ? 1 : 0;
  h[1] = offload.segmentation;
  storeLe(&h[2], offload.headerLength);
  storeLe(&h[4], offload.segmentSize);
  storeLe(&h[6], offload.checksumStart);
  storeLe(&h[8], offload.checksumOffset);
  return h;
}

/// `header`: kVirtioHeaderSize bytes. Nothing in it is checked.
inline FrameOffload fromHeader(std::span<const std::uint8_t> header) {
  FrameOffload o;
  o.needsChecksum = (header[0] & 1) != 0;
  o.segmentation = header[1];
  o.headerLength = loadLe<std::uint16_t>(&header[2]);
  o.segmentSize = loadLe<std::uint16_t>(&header[4]);
  o.checksumStart = loadLe<std::uint16_t>(&header[6]);
  o.checksumOffset = loadLe<std::uint16_t>(&header[8]);
  return o;
}

}  // namespace lodge
