// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// A 16550A serial port (National Semiconductor PC16550D data sheet). Output is never slower than the host: the
/// transmitter is empty as soon as a byte was written. Input comes no faster than a line of 115200 bit/s would bring
/// it, so that a guest's terminal can keep up with what is pasted or piped, and waits while the guest does not want it
/// (RTS is off and received-data interrupts are): what is typed before a driver is ready is not lost. Registers are
/// used by vCPU threads, the host side by any thread.
class Uart : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 8;
  static constexpr std::size_t kFifoBytes = 16;
  /// Bytes of host input kept for the guest beyond its FIFO.
  static constexpr std::size_t kBacklogBytes = 4096;

  /// Gets the guest's output, collected for up to kOutputDelay or kOutputBatch bytes, in order. It may call
  /// input(), but no register.
  using Output = std::function<void(const char* data, std::size_t length)>;
  static constexpr std::size_t kOutputBatch = 256;
  static constexpr Nanoseconds kOutputDelay = 500'000;

  Uart(InterruptLine& interrupt, TimerFactory& timers, Output output);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

  /// Bytes for the guest; returns how many were taken. When fewer, onRoom's function is called once there is room
  /// again, on any thread with no lock held.
  std::size_t input(const char* data, std::size_t length);
  void onRoom(std::function<void()> callback);
  /// Hands out what was collected (at the machine's end).
  void flush();
  void reset();

  struct State {
    std::uint8_t ier = 0, fcr = 0, lcr = 0, mcr = 0, scratch = 0;
    std::uint16_t divisor = kResetDivisor;
    std::uint8_t modemDelta = 0;
    bool overrun = false;
    bool transmitterEmptied = false;  ///< the transmitter-empty interrupt's cause, gone when it was identified
    std::uint8_t received = 0;        ///< bytes in the FIFO
    std::array<std::uint8_t, kFifoBytes> fifo{};
    std::vector<std::uint8_t> waiting{};  ///< host input beyond the FIFO; of save() and restore() alone
  };
  State save() const;
  void restore(const State& state);

 private:
  static constexpr std::uint16_t kResetDivisor = 12;
  /// A character of ten bits at 115200 bit/s.
  static constexpr Nanoseconds kCharacterTime = 86'806;

  std::uint8_t readLocked(std::uint64_t offset);
  std::uint8_t readReceivedLocked();
  void writeLocked(std::uint64_t offset, std::uint8_t value, std::string& ready);
  void writeFifoControlLocked(std::uint8_t value);
  void writeModemControlLocked(std::uint8_t value);
  void transmitLocked(std::uint8_t byte, std::string& ready);
  bool divisorLatchLocked() const;
  void feedLocked();
  std::function<void()> takeRoomCallbackLocked();
  void inputTime();
  void updateInterruptLocked();
  std::uint8_t identificationLocked() const;
  std::size_t fifoDepthLocked() const;

  InterruptLine& interrupt_;
  const Clock& clock_;
  Output output_;
  std::mutex outputMutex_;  // keeps batches in order; taken before mutex_
  mutable std::mutex mutex_;
  State state_;
  std::function<void()> onRoom_;
  bool roomWanted_ = false;
  std::deque<std::uint8_t> backlog_;  // what the host has given beyond the FIFO
  Nanoseconds lineFreeAt_ = 0;        // when the last fed character would have come in
  bool inputArmed_ = false;
  std::string pendingOutput_;
  bool outputArmed_ = false;
  std::unique_ptr<Timer> outputTimer_, inputTimer_;  // last: their destructors wait for callbacks
};

}  // namespace lodge
