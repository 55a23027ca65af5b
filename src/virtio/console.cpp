// SPDX-License-Identifier: Apache-2.0
#include "virtio/console.h"

#include <algorithm>
#include <utility>

namespace lodge::virtio {

std::uint32_t ConsoleDevice::readConfig(std::uint64_t offset, unsigned size) {
  std::uint32_t c = size_;  // struct virtio_console_config: columns, rows
  return readConfigBytes(&c, sizeof c, offset, size);
}

void ConsoleDevice::reset() {
  QueuedDevice::reset();
  heard_ = typed_ = false;
  nextTell_ = std::chrono::steady_clock::time_point{};
  bool tell;
  {
    std::lock_guard lock(inputMutex_);
    backlog_.clear();
    tell = std::exchange(roomWanted_, false);
  }
  if (tell && onRoom_) onRoom_();
}

void ConsoleDevice::transfer(state::Archive& a) {
  QueuedDevice::transfer(a);
  std::lock_guard lock(inputMutex_);
  a(size_, heard_, typed_);
  std::vector<std::uint8_t> waiting(backlog_.begin(), backlog_.end());
  a(waiting);
  a.require(waiting.size() <= kBacklogBytes, "what was typed");
  if (a.mayApply()) backlog_.assign(waiting.begin(), waiting.end());
}

void ConsoleDevice::notify(unsigned queue) {
  if (queue == receive) return deliver();
  if (!typed_) tellSizeSometimes();
  heard_ = true;
  drain(queue, [&](Chain chain) {
    for (const iovec& v : chain.readable) output_(static_cast<const char*>(v.iov_base), v.iov_len);
    finish(queue, std::move(chain), 0);
  });
}

// Linux reads the size at a change only, and passes over one before its port exists, which is some time after it first
// writes (drivers/char/virtio_console.c, config_work_handler). So it is told again while it writes, until someone
// types.
void ConsoleDevice::tellSizeSometimes() {
  auto now = std::chrono::steady_clock::now();
  if (now < nextTell_.load()) return;
  nextTell_ = now + kTellInterval;
  transport_->signalConfig();
}

std::size_t ConsoleDevice::input(const char* data, std::size_t length) {
  if (heard_ && !typed_.exchange(true)) transport_->signalConfig();
  std::size_t taken;
  {
    std::lock_guard lock(inputMutex_);
    taken = std::min(length, kBacklogBytes - backlog_.size());
    backlog_.insert(backlog_.end(), data, data + taken);
    roomWanted_ = taken < length;
  }
  deliver();
  return taken;
}

void ConsoleDevice::deliver() {
  bool tell = false;
  {
    std::lock_guard lock(inputMutex_);
    deliverLocked();
    if (backlog_.size() <= kBacklogBytes / 2) tell = std::exchange(roomWanted_, false);
  }
  if (tell && onRoom_) onRoom_();
}

void ConsoleDevice::deliverLocked() {
  for (unsigned served = 1; !backlog_.empty(); ++served) {
    Chain chain;
    if (!popChain(receive, chain)) return;
    std::uint32_t done = 0;
    for (const iovec& v : chain.writable) {
      std::size_t part = std::min(v.iov_len, backlog_.size());
      std::copy_n(backlog_.begin(), part, static_cast<char*>(v.iov_base));
      backlog_.erase(backlog_.begin(), backlog_.begin() + static_cast<long>(part));
      done += static_cast<std::uint32_t>(part);
    }
    finish(receive, std::move(chain), done);
    if (served % kAtOnce == 0 && goOnLater(receive)) return;
  }
}

void ConsoleDevice::resize(std::uint16_t columns, std::uint16_t rows) {
  size_ = columns | std::uint32_t{rows} << 16;
  if (transport_) transport_->signalConfig();
}

}  // namespace lodge::virtio
