// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "memory/guest_memory.h"
#include "state/archive.h"
#include "virtio/defs.h"

namespace lodge::virtio {

/// Buffers that the driver made available: host pointers into guest RAM, first what the device reads, then what it
/// writes. A token: it must go back to its queue exactly once (VirtQueue::push), or be dropped at a device reset.
class Chain {
 public:
  Chain() = default;
  Chain(Chain&&) noexcept = default;
  Chain& operator=(Chain&&) noexcept = default;

  std::vector<iovec> readable, writable;
  std::uint64_t readableBytes = 0, writableBytes = 0;
  /// Descriptors of the ring that it takes: 1 or more, of VirtQueue::size().
  unsigned slots() const { return slots_; }

 private:
  friend class VirtQueue;
  friend class SplitRing;
  friend class PackedRing;
  struct Range {
    std::uint64_t gpa, length;
  };
  std::vector<Range> written_;
  std::uint16_t id_ = 0;
  std::uint16_t slots_ = 0;
};

/// What the driver configured for one queue.
struct QueueSetup {
  std::uint16_t size = 0;
  std::uint64_t descriptors = 0, driverArea = 0, deviceArea = 0;
  bool packed = false, eventIndex = false, indirect = false;
};

/// The device's side of one virtqueue, split or packed (2.7, 2.8). Not thread-safe: its device guards it.
/// Everything in guest memory is hostile: whatever breaks the rules makes the queue broken(), and it then gives nothing
/// more.
class VirtQueue {
 public:
  enum class Pop : std::uint8_t { empty, chain, broken };

  explicit VirtQueue(GuestMemory& memory);
  ~VirtQueue();
  VirtQueue(VirtQueue&&) noexcept;

  /// False: the areas are not in RAM, misaligned, or the size is not allowed (2.7: a power of two up to 32768).
  bool enable(const QueueSetup& setup);
  void disable();
  bool enabled() const { return ring_ != nullptr; }
  bool broken() const { return broken_; }
  unsigned size() const { return size_; }  ///< in descriptors; 0: it is not enabled

  Pop pop(Chain& out);
  /// Returns a chain, of whose writable part the first `written` bytes were filled. `more`: the driver must not see it
  /// before the next one, which belongs to it (a frame in several buffers: 5.1.6.4).
  void push(Chain chain, std::uint32_t written, bool more = false);
  /// Whether the driver wants an interrupt for what was pushed since the last call.
  bool interruptWanted();
  /// Asks the driver for a notification at the next available chain. True: one is there already; pop again.
  bool armNotification();
  /// Tells the driver that no notification is needed now.
  void disarmNotification();

  /// Saves or loads how far the queue has come; it is enabled or not, as the other side is. `held`: chains that were
  /// popped last and not pushed, which are saved as not popped.
  void transfer(state::Archive& a, const std::vector<const Chain*>& held);

  class Ring;

 private:
  GuestMemory& memory_;
  std::unique_ptr<Ring> ring_;
  bool broken_ = false;
  unsigned size_ = 0;
};

}  // namespace lodge::virtio
