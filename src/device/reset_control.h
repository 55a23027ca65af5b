// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "device/a20_gate.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

/// The PC's reset control register, port 0xcf9 (Intel ICH9 data sheet, 13.7.5): a write that raises bit 2 resets the
/// machine. `onReset` is called on the writing vCPU's thread.
class ResetControl : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 1;
  explicit ResetControl(std::function<void()> onReset) : onReset_(std::move(onReset)) {}

  std::uint64_t read(std::uint64_t, unsigned) override { return value_; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    constexpr std::uint8_t kResetCpu = 1 << 2, kKept = 0x0a;
    std::uint8_t before = value_.exchange(static_cast<std::uint8_t>(value & (kKept | kResetCpu)));
    if ((value & kResetCpu) != 0 && (before & kResetCpu) == 0) onReset_();
  }
  void reset() { value_ = 0; }
  void transfer(state::Archive& a) { a(value_); }

 private:
  std::function<void()> onReset_;
  std::atomic<std::uint8_t> value_{0};
};

/// System control port A, port 0x92 (PS/2): bit 0 resets the machine, bit 1 is the A20 gate.
class SystemControlPortA : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 1;
  SystemControlPortA(A20Gate& gate, std::function<void()> onReset) : gate_(gate), onReset_(std::move(onReset)) {}

  std::uint64_t read(std::uint64_t, unsigned) override { return gate_.open() ? kA20 : 0; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    gate_.set((value & kA20) != 0);
    if ((value & 1) != 0) onReset_();
  }

 private:
  static constexpr std::uint64_t kA20 = 2;
  A20Gate& gate_;
  std::function<void()> onReset_;
};

}  // namespace lodge
