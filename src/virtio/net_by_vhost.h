// SPDX-License-Identifier: Apache-2.0
// Inside of NetDevice: what its two ways of moving frames have in common, and the state of the one by vhost-net.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <vector>

#include "net/vhost_net.h"
#include "virtio/net.h"

namespace lodge::virtio {

/// Feature bits (5.1.3).
namespace bit {
inline constexpr std::uint64_t checksum = 1 << 0, guestChecksum = 1 << 1, mtu = 1 << 3, mac = 1 << 5,
                               guestTso4 = 1 << 7, guestTso6 = 1 << 8, hostTso4 = 1 << 11, hostTso6 = 1 << 12,
                               mergeable = 1 << 15, linkStatus = 1 << 16, controlQueue = 1 << 17, controlRx = 1 << 18,
                               multiQueue = 1 << 22, controlMac = 1 << 23;
}

inline constexpr std::size_t kMaxFrame = 65536 + 64;

/// struct virtio_net_hdr of virtio 1.x, which always has num_buffers.
struct [[gnu::packed]] NetDevice::Header {
  std::uint8_t flags, gsoType;
  std::uint16_t headerLength, gsoSize, checksumStart, checksumOffset, buffers;
};

/// Whose buffers the kernel has. A pair of the kernel's may serve several of the driver's: what they send goes through
/// it, and frames arrive on the driver's first ones.
struct NetDevice::ByVhost {
  ByVhost(VhostNet& n, unsigned driverPairs) : net(n), given(n.pairs()), waiting(2 * driverPairs), left(n.pairs()) {
    for (auto& pair : given) pair[0].resize(VhostRing::kSize), pair[1].resize(VhostRing::kSize);
  }
  std::vector<const Chain*> held(unsigned queue) const {
    std::vector<const Chain*> chains;
    if (queue >= waiting.size()) return chains;
    for (const Chain& chain : waiting[queue]) chains.push_back(&chain);
    return chains;
  }

  struct Given {
    Chain chain;
    unsigned queue;
  };
  VhostNet& net;
  bool running = false, broken = false;
  std::vector<std::array<std::vector<std::optional<Given>>, 2>> given;  ///< by pair, direction and id in the ring
  std::vector<std::deque<Chain>> waiting;  ///< by queue: popped, and not in a ring; those of the oldest first
  std::vector<unsigned> left;              ///< buffers that are still to come of a frame that arrives
};

}  // namespace lodge::virtio
