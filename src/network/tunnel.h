// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "net/backend.h"
#include "network/definition.h"
#include "network/socket_address.h"

namespace lodge::network {

/// Takes messages out of a stream: four bytes of length, then so many bytes.
class StreamFrames {
 public:
  static constexpr std::size_t kLongest = 65536 + 128;
  /// False: the stream is none of ours.
  bool add(std::span<const std::uint8_t> bytes);
  /// The next whole message, until the next call of either; nothing if there is none.
  std::optional<std::span<const std::uint8_t>> next();
  void clear();

 private:
  std::vector<std::uint8_t> data_;
  std::size_t at_ = 0;
};

/// A cable to a switch elsewhere, over TCP (frames as they are, large segments too) or UDP (finished frames, one a
/// datagram). Nothing is encrypted or proven: for networks that are trusted. The side that connects tries again each
/// second; the side that listens takes one peer, and another after that has been silent for half a minute (UDP) or is
/// gone (TCP). I/O thread.
class Tunnel : public NetBackend {
 public:
  Tunnel(EventLoop& loop, TunnelSettings settings);
  ~Tunnel() override;
  Tunnel(const Tunnel&) = delete;
  Tunnel& operator=(const Tunnel&) = delete;

  /// Errors: busy (the port is taken), permissionDenied, io.
  Status start();

  void setReceiver(Receiver receiver) override { receiver_ = std::move(receiver); }
  void receiverReady() override {}
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return !settings_.udp; }
  bool connected() const { return heard_; }

 private:
  Status listen();
  void accept();
  void connectNow();
  void streamEvents(std::uint32_t events);
  void receiveStream();
  void receiveDatagrams();
  void datagram(std::span<const std::uint8_t> bytes, const SocketAddress& from);
  void sendDatagram(std::uint8_t type, std::span<const std::uint8_t> frame);
  void queue(std::span<const std::uint8_t> header, std::span<const std::uint8_t> frame);
  void flush();
  void watchStream();
  void lost();
  void tick();

  EventLoop& loop_;
  TunnelSettings settings_;
  Receiver receiver_;
  UniqueFd listener_, fd_;  ///< the datagram socket, or the stream to the peer
  std::unique_ptr<Timer> timer_;
  StreamFrames input_;
  std::vector<std::uint8_t> output_;
  std::size_t written_ = 0;
  std::uint32_t watched_ = 0;
  bool connecting_ = false, heard_ = false;
  std::optional<SocketAddress> peer_;  ///< by UDP
  Nanoseconds lastHeard_ = 0;
};

}  // namespace lodge::network
