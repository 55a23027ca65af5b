// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/file.h"
#include "net/address.h"
#include "net/backend.h"
#include "net/vhost_ring.h"

namespace lodge {

/// The host kernel's own way between a tap device and a network card's buffers (/dev/vhost-net): frames are copied
/// once, on a kernel thread of the pair of queues. The kernel sees rings of this process (VhostRing) and not the
/// guest's, so that whatever the guest puts into its own has been checked before, and each buffer that the kernel
/// filled is known before the guest sees it. I/O thread, but for stop().
class VhostNet {
 public:
  enum Direction : std::uint8_t { receive, transmit };
  /// What the card's driver takes and leaves to do, and whether frames may lie in several buffers.
  struct Driver {
    bool checksum = false, tcp4 = false, tcp6 = false, mergeable = false;
  };
  static constexpr std::size_t kHeaderSize = 12;  ///< before each frame: struct virtio_net_hdr_v1

  /// `taps`: a descriptor for each pair of queues, of one device with offload headers. Tries all that start() will do.
  /// Errors: notFound, permissionDenied (/dev/vhost-net), unsupported, io.
  static Result<std::unique_ptr<VhostNet>> open(EventLoop& loop, std::vector<UniqueFd> taps);
  virtual ~VhostNet() = default;

  virtual unsigned pairs() const = 0;
  /// From now on the kernel serves the rings; all buffers lie in `memory`, which stays. Errors: io, outOfMemory.
  virtual Status start(std::span<const std::byte> memory, const Driver& driver) = 0;
  /// When this returns the kernel touches no buffer any more. What it had served can still be taken. Any thread, no
  /// other call at the same time.
  virtual void stop() = 0;
  virtual VhostRing& ring(unsigned pair, Direction direction) = 0;
  /// Tells the kernel of what was added to a ring, if it wants that.
  virtual void kick(unsigned pair, Direction direction) = 0;
  /// Called on the I/O thread when the kernel may have served something of a pair.
  virtual void onUsed(std::function<void(unsigned pair)> function) = 0;

  /// Frames for these addresses alone are received, and all groups' with `allGroups`; none named: all frames are.
  virtual void setFilter(const std::vector<MacAddress>& addresses, bool allGroups) = 0;
  /// Frames arrive on the first `count` pairs only.
  virtual void usePairs(unsigned count) = 0;
};

/// A network whose frames a card does not send and receive itself: it hands its buffers to vhost().
class VhostBackend : public NetBackend {
 public:
  virtual VhostNet& vhost() = 0;
  void setReceiver(Receiver) final {}
  void receiverReady() final {}
  void send(std::span<const std::uint8_t>, const FrameOffload&) final {}
  bool supportsOffload() const final { return true; }
};

}  // namespace lodge
