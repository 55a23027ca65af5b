// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// A 16550A serial port (National Semiconductor PC16550D data sheet). Output is never slower than the host: the
/// transmitter is empty as soon as a byte was written. Registers are used by vCPU threads, the host side by any thread.
class Uart : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 8;
  static constexpr std::size_t kFifoBytes = 16;
  /// Bytes of host input kept for the guest beyond its FIFO.
  static constexpr std::size_t kBacklogBytes = 4096;

  /// Gets the guest's output, collected for up to kOutputDelay or kOutputBatch bytes; called with no lock held.
  using Output = std::function<void(const char* data, std::size_t length)>;
  static constexpr std::size_t kOutputBatch = 256;
  static constexpr Nanoseconds kOutputDelay = 500'000;

  Uart(InterruptLine& interrupt, TimerFactory& timers, Output output);
  ~Uart() override;

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

  /// Bytes for the guest; returns how many were taken. When fewer, onRoom's function is called once there is room
  /// again.
  std::size_t input(const char* data, std::size_t length);
  void onRoom(std::function<void()> callback);
  /// Hands out what was collected (at the machine's end).
  void flush();
  void reset();

 private:
  std::uint8_t readLocked(std::uint64_t offset, bool& roomMade);
  void writeLocked(std::uint64_t offset, std::uint8_t value, std::string& ready);
  void transmitLocked(std::uint8_t byte, std::string& ready);
  void receiveLocked();
  void updateInterruptLocked();
  std::uint8_t identificationLocked() const;
  std::size_t fifoDepthLocked() const;

  InterruptLine& interrupt_;
  Output output_;
  std::mutex outputMutex_;  // keeps batches in order; taken before mutex_ is released
  std::mutex mutex_;
  std::function<void()> onRoom_;
  bool roomWanted_ = false;

  std::uint8_t ier_ = 0, fcr_ = 0, lcr_ = 0, mcr_ = 0, scratch_ = 0, divisorLow_ = 12, divisorHigh_ = 0;
  std::uint8_t msrDelta_ = 0;
  bool overrun_ = false, transmitterEmptyPending_ = false;
  std::deque<std::uint8_t> fifo_;     // what the guest can read now
  std::deque<std::uint8_t> backlog_;  // what the host has given beyond it
  std::string pendingOutput_;
  std::unique_ptr<Timer> outputTimer_;
  bool outputArmed_ = false;
  const Clock& clock_;
};

}  // namespace lodge
