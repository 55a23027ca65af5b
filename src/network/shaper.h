// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "base/clock.h"
#include "net/backend.h"

namespace lodge::network {

/// What a cable does to frames on their way.
struct CableSettings {
  std::uint64_t rate = 0;       ///< bits a second; 0: as fast as it goes
  Nanoseconds delay = 0;        ///< each frame's
  std::uint32_t lossParts = 0;  ///< frames of a million that are lost
  bool plain() const { return rate == 0 && delay == 0 && lossParts == 0; }
  bool operator==(const CableSettings&) const = default;
};

/// One direction of a cable: rate (frames wait in a short queue, then are dropped), delay and loss.
class Shaper {
 public:
  using Output = std::function<void(std::span<const std::uint8_t> frame, const FrameOffload& offload)>;
  Shaper(TimerFactory& timers, Output output);

  void set(const CableSettings& settings) { settings_ = settings; }
  void push(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  std::uint64_t dropped() const { return dropped_; }

 private:
  struct Held {
    Nanoseconds due;
    std::vector<std::uint8_t> frame;
    FrameOffload offload;
  };
  void run();
  Nanoseconds timeOf(std::size_t bytes) const;

  TimerFactory& timers_;
  Output output_;
  CableSettings settings_;
  std::unique_ptr<Timer> timer_;
  std::deque<Held> held_;
  std::size_t heldBytes_ = 0;
  Nanoseconds free_ = 0;  ///< when the cable has sent all that was given to it
  std::uint64_t dropped_ = 0;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace lodge::network
