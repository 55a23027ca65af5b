// SPDX-License-Identifier: Apache-2.0
#include "virtio/input.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "virtio/scatter.h"

namespace lodge::virtio {

namespace {
constexpr unsigned kEventQueue = 0;
/// Linux's event codes (input-event-codes.h), which the specification takes over.
constexpr std::uint16_t kSync = 0, kKey = 1, kRelative = 2, kAbsolute = 3;
constexpr std::uint16_t kWheel = 8, kLeft = 0x110, kRight = 0x111, kMiddle = 0x112;
constexpr std::uint16_t kButtons[3] = {kLeft, kMiddle, kRight};  // by the bits of move()

enum Select : std::uint8_t { name = 1, serial = 2, ids = 3, eventBits = 0x11, absoluteInfo = 0x12 };
}  // namespace

/// struct virtio_input_config (5.8.4): what was selected, its size, and the bytes themselves from 8 on.
std::array<std::uint8_t, 136> TabletDevice::config() const {
  std::array<std::uint8_t, 136> all{select_, subselect_};
  std::uint8_t* u = all.data() + 8;
  auto text = [&](std::string_view value) {
    std::memcpy(u, value.data(), value.size());
    all[2] = static_cast<std::uint8_t>(value.size());
  };
  auto bit = [&](unsigned number) {
    u[number / 8] |= static_cast<std::uint8_t>(1u << (number % 8));
    all[2] = std::max(all[2], static_cast<std::uint8_t>(number / 8 + 1));
  };
  switch (select_) {
    case Select::name:
      text("Lodge tablet");
      break;
    case Select::serial:
      text("tablet0");
      break;
    case Select::ids:  // a virtual bus, the vendor, the product, the version
      storeLe<std::uint16_t>(u, 6);
      storeLe<std::uint16_t>(u + 2, 0x1af4);
      storeLe<std::uint16_t>(u + 4, 2);
      storeLe<std::uint16_t>(u + 6, 1);
      all[2] = 8;
      break;
    case Select::eventBits:
      if (subselect_ == kKey) {
        for (std::uint16_t button : kButtons) bit(button);
      } else if (subselect_ == kRelative) {
        bit(kWheel);
      } else if (subselect_ == kAbsolute) {
        bit(0);
        bit(1);
      }
      break;
    case Select::absoluteInfo:
      if (subselect_ > 1) break;
      storeLe<std::uint32_t>(u + 4, kRange);
      all[2] = 20;
      break;
    default:
      break;
  }
  return all;
}

std::uint32_t TabletDevice::readConfig(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  auto all = config();
  return readConfigBytes(all.data(), all.size(), offset, size);
}

void TabletDevice::writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) {
  std::lock_guard lock(mutex_);
  for (unsigned n = 0; n < size; ++n) {
    auto byte = static_cast<std::uint8_t>(value >> (8 * n));
    if (offset + n == 0) select_ = byte;
    if (offset + n == 1) subselect_ = byte;
  }
}

void TabletDevice::activate(std::uint64_t features) {
  QueuedDevice::activate(features);
  std::lock_guard lock(mutex_);
  active_ = true;
}

void TabletDevice::reset() {
  {
    std::lock_guard lock(mutex_);
    active_ = false;
    waiting_.clear();
    select_ = subselect_ = 0;
    x_ = y_ = buttons_ = 0;
  }
  QueuedDevice::reset();
}

void TabletDevice::transfer(state::Archive& a) {
  QueuedDevice::transfer(a);
  std::lock_guard lock(mutex_);
  a(select_, subselect_, x_, y_, buttons_);
  std::size_t count = a.count(waiting_.size(), kMostWaiting, "the number of a tablet's events");
  if (a.loading()) waiting_.assign(count, {});
  for (Event& event : waiting_) a(event.type, event.code, event.value);
}

void TabletDevice::notify(unsigned queue) {
  if (queue == kEventQueue) {
    std::lock_guard lock(mutex_);
    return deliverLocked();
  }
  // The driver's lamps and the like, of which there are none.
  drain(queue, [&](Chain chain) { finish(queue, std::move(chain), 0); });
}

bool TabletDevice::move(std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel) {
  std::lock_guard lock(mutex_);
  if (!active_) return false;
  if (waiting_.size() + 8 > kMostWaiting) return true;  // nobody reads: the next position makes up for it
  if (x != x_) addLocked(kAbsolute, 0, std::min(x, kRange));
  if (y != y_) addLocked(kAbsolute, 1, std::min(y, kRange));
  for (unsigned n = 0; n < 3; ++n) {
    if (((buttons ^ buttons_) >> n & 1) != 0) addLocked(kKey, kButtons[n], buttons >> n & 1);
  }
  if (wheel != 0) addLocked(kRelative, kWheel, static_cast<std::uint32_t>(wheel));
  x_ = x;
  y_ = y;
  buttons_ = buttons;
  if (waiting_.empty() || waiting_.back().type == kSync) return true;
  addLocked(kSync, 0, 0);
  deliverLocked();
  return true;
}

/// An event a buffer; what finds none waits until the driver has given more.
void TabletDevice::deliverLocked() {
  Slot& slot = slots_[kEventQueue];
  bool interrupt = false, broken = false;
  {
    std::lock_guard lock(slot.mutex);
    while (!waiting_.empty()) {
      Chain chain;
      auto result = slot.queue.pop(chain);
      if (result == VirtQueue::Pop::empty && slot.queue.armNotification()) continue;
      broken = result == VirtQueue::Pop::broken;
      if (result != VirtQueue::Pop::chain) break;
      storeFront(chain.writable, waiting_.front());
      auto written = static_cast<std::uint32_t>(std::min<std::uint64_t>(chain.writableBytes, sizeof(Event)));
      slot.queue.push(std::move(chain), written);
      waiting_.pop_front();
      interrupt = true;
    }
    interrupt = interrupt && slot.queue.interruptWanted();
  }
  if (broken) transport_->needsReset(kEventQueue);
  if (interrupt) transport_->signalQueue(kEventQueue);
}

}  // namespace lodge::virtio
