// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "memory/io_bus.h"

namespace lodge {

/// The `isa-debug-exit` device of test kernels: a write ends the machine, with exit status (value << 1) | 1.
/// Four bytes of I/O space. `onExit` gets the value, on the writing vCPU's thread.
class DebugExit : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 4;
  explicit DebugExit(std::function<void(std::uint32_t)> onExit) : onExit_(std::move(onExit)) {}

  std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override { onExit_(static_cast<std::uint32_t>(value)); }

 private:
  std::function<void(std::uint32_t)> onExit_;
};

}  // namespace lodge
