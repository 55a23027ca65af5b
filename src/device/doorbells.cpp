// SPDX-License-Identifier: Apache-2.0
#include "device/doorbells.h"

namespace lodge {

void Doorbells::add(std::uint64_t address, int event) {
  std::lock_guard lock(mutex_);
  auto [bell, isNew] = bells_.try_emplace(address, Bell{event, false});
  if (isNew && watcher_) bell->second.watched = watcher_->watch(address, event);
}

void Doorbells::remove(std::uint64_t address) {
  std::lock_guard lock(mutex_);
  auto bell = bells_.find(address);
  if (bell == bells_.end()) return;
  if (bell->second.watched) watcher_->unwatch(address, bell->second.event);
  bells_.erase(bell);
}

void Doorbells::setWatcher(DoorbellWatcher* watcher) {
  std::lock_guard lock(mutex_);
  for (auto& [address, bell] : bells_) {
    if (bell.watched) watcher_->unwatch(address, bell.event);
    bell.watched = watcher && watcher->watch(address, bell.event);
  }
  watcher_ = watcher;
}

}  // namespace lodge
