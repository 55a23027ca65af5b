// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "net/backend.h"

namespace lodge::virtio {

/// Does in software what an offload asks for: fills the checksum in, and cuts a TCP segment over IPv4 or IPv6 that is
/// larger than the network's into frames of their own (virtio 1.2, 5.1.6.2). `emit` gets each finished frame. False:
/// the frame's headers do not fit what the offload says (the guest's mistake): nothing was emitted.
bool finishOffload(std::span<const std::uint8_t> frame, const FrameOffload& offload,
                   const std::function<void(std::span<const std::uint8_t>)>& emit);

}  // namespace lodge::virtio
