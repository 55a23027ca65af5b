// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event_loop.h"
#include "net/address.h"

namespace lodge {

/// Checksum and segmentation work left to the other side: struct virtio_net_hdr's meaning (virtio 1.2, 5.1.6).
struct FrameOffload {
  bool needsChecksum = false;
  std::uint16_t checksumStart = 0, checksumOffset = 0;
  std::uint8_t segmentation = 0;  ///< VIRTIO_NET_HDR_GSO_*
  std::uint16_t segmentSize = 0, headerLength = 0;
};

/// The far side of a network card: user-mode NAT, tap, switch...
class NetBackend {
 public:
  virtual ~NetBackend() = default;
  /// Where frames for the guest go; called on the I/O thread. False: no room, the frame was dropped (backends may
  /// retry).
  using Receiver = std::function<bool(std::span<const std::uint8_t> frame, const FrameOffload& offload)>;
  virtual void setReceiver(Receiver receiver) = 0;
  /// The guest can take frames again after a refusal. I/O thread.
  virtual void receiverReady() = 0;
  /// A frame from the guest (an Ethernet frame without FCS, up to 64 KiB + headers with segmentation offload). I/O
  /// thread.
  virtual void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) = 0;
  /// What FrameOffload the backend accepts and produces.
  virtual bool supportsOffload() const = 0;
  /// The longest IP packet that the network takes, in bytes: what the card tells its driver (virtio 1.2, 5.1.4).
  virtual unsigned mtu() const { return 1500; }
};

/// A port forward of the user network: host address and port to guest port.
struct PortForward {
  bool udp = false;
  std::string hostAddress;  ///< "" for 127.0.0.1
  std::uint16_t hostPort = 0;
  std::string guestAddress;  ///< "" for the first DHCP address
  std::uint16_t guestPort = 0;
};

struct UserNetOptions {
  std::vector<PortForward> forwards;
  bool ipv6 = true;
  bool restricted = false;  ///< no way out of the virtual network
  std::string hostname;
  std::string tftp;      ///< a folder whose files the guest may read by TFTP from the host's address; empty: none
  std::string bootFile;  ///< what DHCP names for starting from the network

  // The addresses; empty ones are those of 10.0.2.0/24 and fec0::/64.
  std::string network, host, nameServer, firstLease;  ///< "10.0.2.0/24", "10.0.2.2", "10.0.2.3", "10.0.2.15"
  std::string network6;                               ///< "fd00:1234::/64": the host is ::2, the name server ::3
  unsigned mtu = 1500;
};

/// The user network's forwards while it runs. I/O thread.
class ForwardControl {
 public:
  virtual ~ForwardControl() = default;
  /// Errors: as openUserNet().
  virtual Status addForward(const PortForward& forward) = 0;
  virtual void removeForward(const PortForward& forward) = 0;
};

/// Rootless NAT by libslirp: DHCP, DNS, TCP, UDP, ICMP echo where the host allows it, IPv6. 10.0.2.0/24; the host
/// is 10.0.2.2. Errors: busy (a forward's port is taken: the message names it), permissionDenied (a port under 1024),
/// io.
Result<std::unique_ptr<NetBackend>> openUserNet(EventLoop& loop, const UserNetOptions& options);

/// The same with control over its forwards; `control` points into the returned object.
struct UserNetParts {
  std::unique_ptr<NetBackend> backend;
  ForwardControl* control = nullptr;
};
Result<UserNetParts> openUserNetParts(EventLoop& loop, const UserNetOptions& options);

/// A tap device of the host that exists and that this user may open; `interfaceName`: "tap0". Errors: notFound (hint:
/// how to make it), permissionDenied, busy, invalidArgument.
Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const std::string& interfaceName);

}  // namespace lodge
