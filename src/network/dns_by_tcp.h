// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "network/frame_builder.h"
#include "network/packet.h"

namespace lodge::network {

/// The name server's TCP (RFC 7766), as much of RFC 9293 as that takes: it only listens, sends what it sent again from
/// the oldest unacknowledged byte on, and has one question a connection in work at a time. What comes out of order
/// comes again. Bounds: 128 connections, of which the one that was quiet longest makes room, and 8 of one machine; 4
/// KiB a question; 15 s of silence. I/O thread.
class DnsByTcp {
 public:
  using Emit = std::function<void(const Frame& frame)>;
  using Answer = std::function<void(std::span<const std::uint8_t> message)>;
  /// Calls the answer now, later or never.
  using Ask = std::function<void(std::span<const std::uint8_t> query, Answer answer)>;

  /// `mtu`: of the network, in bytes. `emit` and `ask` live as long as this.
  DnsByTcp(TimerFactory& timers, unsigned mtu, Emit emit, Ask ask);
  ~DnsByTcp();
  DnsByTcp(const DnsByTcp&) = delete;
  DnsByTcp& operator=(const DnsByTcp&) = delete;

  /// A whole frame, checksums done, whose `packet` is a TCP segment to one of this host's addresses.
  void segment(std::span<const std::uint8_t> frame, const Packet& packet);
  std::size_t connections() const { return connections_.size(); }

 private:
  struct Connection;
  struct Key {
    IpAddress here, there;
    std::uint16_t port = 0;
    auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Segment;

  void open(const Key& key, const Segment& segment);
  bool makeRoom(const MacAddress& client);
  bool acknowledge(Connection& c, const Segment& segment);
  void take(Connection& c, const Segment& segment);
  void serve(const Key& key, Connection& c);
  void answered(const Key& key, std::uint64_t number, std::span<const std::uint8_t> message);
  void transmit(Connection& c, bool again);
  void emit(Connection& c, std::uint32_t sequence, std::uint8_t flags, std::span<const std::uint8_t> data = {});
  void refuse(const Segment& segment);
  void expire();
  void rearm();

  TimerFactory& timers_;
  unsigned mtu_;
  Emit emit_;
  Ask ask_;
  std::map<Key, std::unique_ptr<Connection>> connections_;
  std::uint64_t next_ = 1;
  bool serving_ = false;  ///< a question is being asked: its answer may come meanwhile
  std::unique_ptr<Timer> timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lodge::network
