// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/file.h"
#include "net/backend.h"
#include "net/offload.h"
#include "net/virtio_header.h"

namespace lodge {

/// A file descriptor that takes and gives whole frames, each behind a virtio header: a SOCK_SEQPACKET socket, a tap
/// device with IFF_VNET_HDR, a packet socket with PACKET_VNET_HDR. What the other side has no room for waits in a queue
/// of bounded bytes, then is dropped, as in a network card. I/O thread.
class MessageNet : public NetBackend {
 public:
  enum class Kind : std::uint8_t { socket, tap };
  /// Of a tap device the TCP segments that come together are joined, as by a card's receive offload: what is on their
  /// way costs by the frame.
  MessageNet(EventLoop& loop, UniqueFd fd, Kind kind);
  ~MessageNet() override;
  MessageNet(const MessageNet&) = delete;
  MessageNet& operator=(const MessageNet&) = delete;

  void setReceiver(Receiver receiver) override;
  void receiverReady() override;
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return true; }
  unsigned mtu() const override { return mtu_; }
  void setMtu(unsigned mtu) { mtu_ = mtu; }

  /// Called once when the other side has gone. It may destroy the object only through EventLoop::post().
  void onGone(std::function<void()> function) { gone_ = std::move(function); }
  std::uint64_t dropped() const { return dropped_; }

  static constexpr std::size_t kMaxFrame = 65536 + 64;
  static constexpr std::size_t kMaxQueuedBytes = 3 << 20;

 private:
  void watch();
  void receive();
  void receiveMany();
  void deliver(std::span<const std::uint8_t> message);
  bool give(std::span<const std::uint8_t> message);
  void joined(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  bool write(std::span<const std::uint8_t> message);
  void flush();
  void goneNow();

  EventLoop& loop_;
  UniqueFd fd_;
  Kind kind_;
  unsigned mtu_ = 1500;
  Receiver receiver_;
  SegmentJoiner joiner_;
  std::function<void()> gone_;
  std::deque<std::vector<std::uint8_t>> held_;  ///< what the receiver had no room for; nothing is read meanwhile
  std::deque<std::vector<std::uint8_t>> queue_;
  std::size_t queued_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint32_t watched_ = 0;
  bool ended_ = false;
};

}  // namespace lodge
