// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <deque>
#include <mutex>

#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A tablet (5.8): an absolute pointer with three buttons and a wheel, as Linux's input events have them. Its position
/// is that of a VNC client's pointer, so that guest and client agree on where it is.
class TabletDevice : public QueuedDevice {
 public:
  static constexpr std::uint32_t kRange = 0x7fff;  ///< positions are 0 to this, in both directions

  explicit TabletDevice(GuestMemory& memory) : QueuedDevice(memory, 2) {}
  DeviceType type() const override { return DeviceType::input; }
  std::uint64_t features() const override { return 0; }
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  void writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) override;
  void activate(std::uint64_t features) override;
  void reset() override;
  void notify(unsigned queue) override;
  void transfer(state::Archive& a) override;

  /// The pointer is at (x, y) of kRange; buttons: 1 left, 2 middle, 4 right; wheel: notches, away from the user
  /// positive. False: no driver listens. Any thread.
  bool move(std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel);

 private:
  struct Event {
    std::uint16_t type, code;
    std::uint32_t value;
  };
  static_assert(sizeof(Event) == 8);
  static constexpr std::size_t kMostWaiting = 256;

  void deliverLocked();
  void addLocked(std::uint16_t type, std::uint16_t code, std::uint32_t value) {
    waiting_.push_back({type, code, value});
  }
  std::array<std::uint8_t, 136> config() const;

  std::mutex mutex_;
  std::deque<Event> waiting_;
  bool active_ = false;
  std::uint8_t select_ = 0, subselect_ = 0;
  std::uint32_t x_ = 0, y_ = 0;
  unsigned buttons_ = 0;
};

}  // namespace lodge::virtio
