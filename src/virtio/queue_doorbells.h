// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "device/doorbells.h"

namespace lodge::virtio {

/// The notification addresses of a function's queues (virtio 1.2, 4.1.4.4) as doorbells: where the engine watches them,
/// a notification is an event, and the I/O thread does what else the vCPU's thread would have.
class QueueDoorbells {
 public:
  /// `ring` is called on the I/O thread with the queue's number. Made and destroyed on that thread, or before it runs.
  QueueDoorbells(Doorbells& doorbells, EventLoop& loop, unsigned queues, unsigned step,
                 std::function<void(unsigned)> ring);
  ~QueueDoorbells();
  QueueDoorbells(const QueueDoorbells&) = delete;
  QueueDoorbells& operator=(const QueueDoorbells&) = delete;

  /// Queue 0's address; each further one's is `step` bytes behind.
  void place(std::optional<std::uint64_t> address);
  /// Whether the driver uses a queue now. If not, `ring` is not under way any more on return. Not from within `ring`.
  void setLive(unsigned queue, bool live);
  /// Has `ring` called (once more) for a queue that the driver uses, after whatever else the I/O thread has to do.
  /// False: the driver does not use it, or it has no event. Any thread.
  bool ringAgain(unsigned queue);

 private:
  struct Bell {
    UniqueFd event;
    std::mutex ringing;
    std::atomic<bool> live{false};
    std::optional<std::uint64_t> at{};  ///< where it is
  };
  void updateLocked(unsigned queue);

  Doorbells& doorbells_;
  EventLoop& loop_;
  const unsigned step_;
  std::mutex mutex_;
  std::optional<std::uint64_t> address_;
  std::vector<Bell> bells_;
};

}  // namespace lodge::virtio
