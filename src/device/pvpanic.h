// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "memory/io_bus.h"

namespace lodge {

/// The pvpanic device (QEMU docs/specs/pvpanic): one byte of I/O space. Reads say which events are known; the guest
/// writes the event that happened. `onEvent` is called on the writing vCPU's thread with the known bits of what was
/// written.
class PvPanic : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 1;
  static constexpr std::uint8_t kPanicked = 1 << 0;     ///< the guest crashed and does nothing about it
  static constexpr std::uint8_t kCrashLoaded = 1 << 1;  ///< the guest crashed and its crash kernel takes over

  explicit PvPanic(std::function<void(std::uint8_t)> onEvent) : onEvent_(std::move(onEvent)) {}

  std::uint64_t read(std::uint64_t, unsigned) override { return kPanicked | kCrashLoaded; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    auto events = static_cast<std::uint8_t>(value & (kPanicked | kCrashLoaded));
    if (events != 0) onEvent_(events);
  }

 private:
  std::function<void(std::uint8_t)> onEvent_;
};

}  // namespace lodge
