// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "net/backend.h"

namespace lodge {

/// Whether the host's kernel shall move a tap device's frames (vhost-net).
enum class VhostUse : std::uint8_t { automatic, on, off };

/// "auto", "on", "off".
std::optional<VhostUse> vhostUseFrom(std::string_view text);

struct TapOptions {
  std::string interfaceName;  ///< "tap0"
  unsigned queues = 1;        ///< at most, of a device that has several, where the kernel moves the frames
  VhostUse vhost = VhostUse::automatic;
};

/// The queues of a device that somebody else opened, with offload headers.
struct TapQueues {
  std::vector<UniqueFd> queues;
  unsigned mtu = 1500;
  VhostUse vhost = VhostUse::automatic;
  std::shared_ptr<void> companion;  ///< stays as long as the backend
};

/// Without vhost-net the first of the queues is the device's only one. Errors: with VhostUse::on VhostNet::open()'s.
Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, TapQueues tap);

/// As openTapNet() of a name (net/backend.h), which is without vhost-net. Where the kernel moves the frames, what comes
/// back is a VhostBackend. Errors: openTapNet()'s; with VhostUse::on VhostNet::open()'s.
Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const TapOptions& options);

}  // namespace lodge
