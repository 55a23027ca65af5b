// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "virtio/device.h"

namespace lodge::virtio {

/// The queues of a device, each with its mutex: what most devices need beyond their own work.
class QueuedDevice : public Device {
 public:
  QueuedDevice(GuestMemory& memory, unsigned queues) {
    for (unsigned i = 0; i < queues; ++i) slots_.emplace_back(memory);
  }
  unsigned queueCount() const override { return static_cast<unsigned>(slots_.size()); }
  void activate(std::uint64_t features) override { features_ = features; }
  void enableQueue(unsigned queue, const QueueSetup& setup, bool& accepted) override {
    std::lock_guard lock(slots_[queue].mutex);
    accepted = slots_[queue].queue.enable(setup);
  }
  /// On return no thread is in drain() with a chain of the queue's. Not from within that.
  void disableQueue(unsigned queue) override {
    Slot& slot = slots_[queue];
    {
      std::lock_guard lock(slot.mutex);
      slot.queue.disable();
    }
    while (unsigned calls = slot.calls) slot.calls.wait(calls);
  }
  void reset() override {
    for (unsigned i = 0; i < queueCount(); ++i) disableQueue(i);
    features_ = 0;
  }
  void transfer(state::Archive& a) override {
    for (unsigned i = 0; i < queueCount(); ++i) {
      std::lock_guard lock(slots_[i].mutex);
      slots_[i].queue.transfer(a, held(i));
    }
  }

 protected:
  struct Slot {
    explicit Slot(GuestMemory& memory) : queue(memory) {}
    std::mutex mutex;
    VirtQueue queue;
    std::atomic<unsigned> calls{0};  ///< of drain(): the first of them serves for all
  };
  /// How many chains of a queue a thread serves before it lets others have a turn.
  static constexpr unsigned kAtOnce = 64;

  /// Chains that were popped last and wait in the device: a saved queue has them as not popped.
  virtual std::vector<const Chain*> held(unsigned) const { return {}; }

  unsigned queueSize(unsigned index) {
    std::lock_guard lock(slots_[index].mutex);
    return slots_[index].queue.size();
  }
  /// The next available chain of a queue. False if there is none; then notifications are armed. A broken ring is
  /// reported to the transport.
  bool popChain(unsigned index, Chain& chain) {
    Slot& slot = slots_[index];
    VirtQueue::Pop result;
    {
      std::lock_guard lock(slot.mutex);
      do {
        result = slot.queue.pop(chain);
      } while (result == VirtQueue::Pop::empty && slot.queue.armNotification());
    }
    if (result == VirtQueue::Pop::broken) transport_->needsReset(index);
    return result == VirtQueue::Pop::chain;
  }
  /// Has notify() called for the queue once more, on a thread that has others to serve: see Transport.
  virtual bool goOnLater(unsigned queue) { return transport_->goOnLater(queue); }
  /// Pops every available chain of a queue and hands it to `serve(Chain)`, which is called without the lock, and by one
  /// thread at a time: a call that finds another at work leaves the rest to it. A driver that makes more of them
  /// available meanwhile does not hold up what else the thread has to do.
  template <class Serve>
  void drain(unsigned index, Serve&& serve) {
    Slot& slot = slots_[index];
    if (slot.calls.fetch_add(1) != 0) return;
    for (unsigned served = 0;;) {
      unsigned calls = slot.calls;
      for (Chain chain; popChain(index, chain);) {
        serve(std::move(chain));
        if (++served % kAtOnce == 0 && leaveRest(slot, index)) return;
      }
      if (!slot.calls.compare_exchange_strong(calls, 0)) continue;
      slot.calls.notify_all();
      return;
    }
  }
  struct Finished {
    Chain chain;
    std::uint32_t written;
  };
  /// Returns a chain and interrupts the driver if it wants that. Any thread.
  void finish(unsigned index, Chain chain, std::uint32_t written) {
    Finished one{std::move(chain), written};
    finishAll(index, {&one, 1});
  }
  /// The same for chains that belong together: the driver sees all of them at once.
  void finishAll(unsigned index, std::span<Finished> all) {
    bool interrupt;
    {
      std::lock_guard lock(slots_[index].mutex);
      for (std::size_t i = 0; i < all.size(); ++i)
        slots_[index].queue.push(std::move(all[i].chain), all[i].written, i + 1 < all.size());
      interrupt = slots_[index].queue.interruptWanted();
    }
    if (interrupt) transport_->signalQueue(index);
  }
  /// Returns a chain; whether the driver wants an interrupt for it is signalIfWanted()'s question.
  void finishQuietly(unsigned index, Chain chain, std::uint32_t written) {
    std::lock_guard lock(slots_[index].mutex);
    slots_[index].queue.push(std::move(chain), written);
  }
  /// Interrupts the driver if it wants that for what was returned since this was asked last.
  void signalIfWanted(unsigned index) {
    bool interrupt;
    {
      std::lock_guard lock(slots_[index].mutex);
      interrupt = slots_[index].queue.interruptWanted();
    }
    if (interrupt) transport_->signalQueue(index);
  }

  /// Ends drain() with what there is still left to a later call. False: nobody would make that.
  bool leaveRest(Slot& slot, unsigned index) {
    unsigned calls = slot.calls;
    if (!goOnLater(index)) return false;
    bool missed = slot.calls.exchange(0) != calls;  // the later call itself may have come too early
    slot.calls.notify_all();
    if (missed) goOnLater(index);
    return true;
  }

  std::deque<Slot> slots_;
  std::uint64_t features_ = 0;
};

}  // namespace lodge::virtio
