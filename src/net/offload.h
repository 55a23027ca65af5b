// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "net/backend.h"

namespace lodge {

/// The least that a TCP segment may be asked to be cut into: no TCP takes smaller ones (Linux's tcp_min_snd_mss), and
/// one frame must not become sixty thousand.
inline constexpr std::size_t kLeastSegment = 48;

/// Does in software what an offload asks for: fills the checksum in, and cuts a TCP segment over IPv4 or IPv6 that is
/// larger than the network's into frames of their own (virtio 1.2, 5.1.6.2). `emit` gets each finished frame. False:
/// the frame's headers do not fit what the offload says, or segments of less than kLeastSegment bytes are asked for
/// (the guest's mistake): nothing was emitted.
bool finishOffload(std::span<const std::uint8_t> frame, const FrameOffload& offload,
                   const std::function<void(std::span<const std::uint8_t>)>& emit);

/// The same, but a large TCP segment stays whole, of up to 64 KiB: for receivers inside this process. `frame` is
/// changed. False as above.
bool finishWhole(std::vector<std::uint8_t>& frame, const FrameOffload& offload);

/// Joins the TCP segments of one flow that follow each other into large ones, as a network card's receive offload does:
/// frames that need few buffers, notifications and interrupts. Frames must be complete, checksums included. One at a
/// time is held back until another does not follow it, or flush().
class SegmentJoiner {
 public:
  using Receiver = std::function<void(std::span<const std::uint8_t> frame, const FrameOffload& offload)>;
  explicit SegmentJoiner(Receiver receiver) : receiver_(std::move(receiver)) {}

  void add(std::span<const std::uint8_t> frame) { take(frame, {}, false); }
  /// From a sender that may have left its checksum or its segmentation to others, or may be wrong: what is complete is
  /// joined only if its checksums are right.
  void add(std::span<const std::uint8_t> frame, const FrameOffload& offload) { take(frame, offload, true); }
  void flush();
  bool holds() const { return !held_.empty(); }

 private:
  void take(std::span<const std::uint8_t> frame, const FrameOffload& offload, bool verify);
  bool follows(std::span<const std::uint8_t> frame) const;

  Receiver receiver_;
  std::vector<std::uint8_t> held_;
  FrameOffload offload_{};             ///< of `held_` as it came
  std::size_t tcp_ = 0, payload_ = 0;  ///< offsets in `held_`
  bool v6_ = false;
  std::size_t segment_ = 0;  ///< payload bytes of the first segment
  std::uint32_t next_ = 0;   ///< sequence number that follows
  bool joined_ = false, complete_ = false;
};

}  // namespace lodge
