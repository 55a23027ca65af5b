// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

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

/// As openTapNet() of a name (net/backend.h), which is without vhost-net. Where the kernel moves the frames, what comes
/// back is a VhostBackend. Errors: openTapNet()'s; with VhostUse::on VhostNet::open()'s.
Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const TapOptions& options);

}  // namespace lodge
