// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>

#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A console with one port and a size (virtio 1.2, 5.3), hvc0 in Linux.
class ConsoleDevice : public QueuedDevice {
 public:
  static constexpr std::size_t kBacklogBytes = 64 << 10;
  static constexpr std::chrono::milliseconds kTellInterval{20};
  using Output = std::function<void(const char* data, std::size_t length)>;
  ConsoleDevice(GuestMemory& memory, Output output) : QueuedDevice(memory, 2), output_(std::move(output)) {}

  DeviceType type() const override { return DeviceType::console; }
  std::uint64_t features() const override { return 1; }  // size
  std::uint16_t maxQueueSize() const override { return 64; }
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  void reset() override;
  void notify(unsigned queue) override;
  void transfer(state::Archive& a) override;

  /// Bytes for the guest; returns how many were taken (the rest to be offered again after onRoom). Any thread.
  std::size_t input(const char* data, std::size_t length);
  /// Set before the guest runs; called on the thread that made the room, with no lock held.
  void onRoom(std::function<void()> callback) { onRoom_ = std::move(callback); }
  void resize(std::uint16_t columns, std::uint16_t rows);

 private:
  enum Queue : unsigned { receive = 0, transmit = 1 };
  void tellSizeSometimes();
  void deliver();
  void deliverLocked();

  Output output_;
  std::function<void()> onRoom_;
  std::mutex inputMutex_;
  bool roomWanted_ = false;
  std::deque<char> backlog_;
  std::atomic<std::uint32_t> size_{80 | 25 << 16};
  std::atomic<bool> heard_{false};  ///< the driver has written since its reset
  std::atomic<bool> typed_{false};  ///< input came after that
  std::atomic<std::chrono::steady_clock::time_point> nextTell_{};
};

}  // namespace lodge::virtio
