// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "memory/io_bus.h"

namespace lodge {

/// The port that firmware writes its messages to, a byte at a time (0x402 for SeaBIOS and OVMF; Bochs's, which answers
/// 0xe9 to reads). Hands out whole lines, and what is longer than kMaxLine in pieces. Any thread.
class DebugConsole : public IoDevice {
 public:
  static constexpr std::uint8_t kPresent = 0xe9;
  static constexpr std::size_t kMaxLine = 256;

  /// Gets a line without its end; null: nobody listens, and reads say that there is no such port.
  explicit DebugConsole(std::function<void(std::string_view line)> output) : output_(std::move(output)) {}

  std::uint64_t read(std::uint64_t, unsigned) override { return output_ ? kPresent : 0xff; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    if (!output_) return;
    auto byte = static_cast<char>(value);
    std::lock_guard lock(mutex_);
    if (byte != '\n' && byte != '\r') line_.push_back(byte >= ' ' && byte < 0x7f ? byte : '?');
    if (line_.size() < kMaxLine && (byte != '\n' || line_.empty())) return;
    output_(line_);
    line_.clear();
  }

 private:
  std::function<void(std::string_view)> output_;
  std::mutex mutex_;
  std::string line_;
};

}  // namespace lodge
