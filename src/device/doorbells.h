// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>

namespace lodge {

/// Who can make a guest's stores events, without a device access: an engine. Any thread.
class DoorbellWatcher {
 public:
  virtual ~DoorbellWatcher() = default;
  /// From now on each store of two bytes at guest-physical `address` adds one to the eventfd. False: it cannot, and
  /// stores reach the device behind the address as before.
  virtual bool watch(std::uint64_t address, int event) = 0;
  virtual void unwatch(std::uint64_t address, int event) = 0;
};

/// The addresses at which devices only want to know that a store was made, and who watches them now; they stay when the
/// engine changes. Owned by the board, longer than devices and engine. Any thread.
class Doorbells {
 public:
  void add(std::uint64_t address, int event);
  void remove(std::uint64_t address);
  /// While no vCPU runs; null: nobody.
  void setWatcher(DoorbellWatcher* watcher);
  /// A device answered a doorbell.
  void noteRing() { rings_.fetch_add(1, std::memory_order_relaxed); }
  std::uint64_t rings() const { return rings_.load(std::memory_order_relaxed); }

 private:
  struct Bell {
    int event;
    bool watched;
  };
  std::mutex mutex_;
  std::map<std::uint64_t, Bell> bells_;
  DoorbellWatcher* watcher_ = nullptr;
  std::atomic<std::uint64_t> rings_{0};
};

}  // namespace lodge
