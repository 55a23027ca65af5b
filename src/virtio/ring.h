// SPDX-License-Identifier: Apache-2.0
// Inside of VirtQueue: what split and packed rings have in common.
#pragma once

#include <atomic>
#include <cstdint>

#include "virtio/virtqueue.h"

namespace lodge::virtio {

class VirtQueue::Ring {
 public:
  Ring(GuestMemory& memory, const QueueSetup& setup) : memory_(memory), setup_(setup) {}
  virtual ~Ring() = default;
  virtual Pop pop(Chain& out) = 0;
  virtual void push(const Chain& chain, std::uint32_t written, bool more) = 0;
  virtual bool interruptWanted() = 0;
  virtual bool armNotification() = 0;
  virtual void disarmNotification() = 0;
  /// `heldChains` and the `heldSlots` that they have were popped last and are saved as not popped.
  virtual void transfer(state::Archive& a, std::uint16_t heldChains, std::uint16_t heldSlots) = 0;

 protected:
  /// A request larger than this is an attack: no driver builds it.
  static constexpr std::uint64_t kMaxChainBytes = 1ull << 32;

  /// Adds one buffer. False: outside RAM, or a readable one after a writable one (2.7.4.2).
  bool add(Chain& chain, std::uint64_t address, std::uint32_t length, bool writable);

  GuestMemory& memory_;
  QueueSetup setup_;
};

std::unique_ptr<VirtQueue::Ring> makeSplitRing(GuestMemory& memory, const QueueSetup& setup);
std::unique_ptr<VirtQueue::Ring> makePackedRing(GuestMemory& memory, const QueueSetup& setup);

/// Fields in guest memory are shared with running vCPUs.
template <class T>
inline T loadShared(const void* p, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>(*static_cast<T*>(const_cast<void*>(p))).load(order);
}
template <class T>
inline void storeShared(void* p, T value, std::memory_order order = std::memory_order_relaxed) {
  std::atomic_ref<T>(*static_cast<T*>(p)).store(value, order);
}

/// Whether `event` lies in (from, to], modulo 2^16 (2.7.10).
inline bool eventPassed(std::uint16_t event, std::uint16_t to, std::uint16_t from) {
  return static_cast<std::uint16_t>(to - event - 1) < static_cast<std::uint16_t>(to - from);
}

}  // namespace lodge::virtio
