// SPDX-License-Identifier: Apache-2.0
// Packed virtqueues: virtio 1.2, 2.8.
#include <utility>

#include "base/bytes.h"
#include "virtio/ring.h"

namespace lodge::virtio {

namespace {
// Event suppression flags (2.8.14).
constexpr std::uint16_t kEventsOn = 0, kEventsOff = 1, kEventAtDescriptor = 2;

/// A position in the ring with its wrap counter.
struct Position {
  std::uint16_t index = 0;
  bool wrap = true;

  void advance(std::uint16_t count, std::uint16_t size) {
    std::uint32_t next = std::uint32_t{index} + count;
    if (next >= size) {
      next -= size;
      wrap = !wrap;
    }
    index = static_cast<std::uint16_t>(next);
  }
  void goBack(std::uint16_t count, std::uint16_t size) {
    if (count > index) {
      index = static_cast<std::uint16_t>(index + size);
      wrap = !wrap;
    }
    index = static_cast<std::uint16_t>(index - count);
  }
};
}  // namespace

class PackedRing : public VirtQueue::Ring {
 public:
  PackedRing(GuestMemory& memory, const QueueSetup& setup, std::byte* ring, std::byte* driver, std::byte* device)
      : Ring(memory, setup), ring_(ring), driverEvent_(driver), deviceEvent_(device) {}

  VirtQueue::Pop pop(Chain& out) override {
    if (!isAvailable(next_)) return VirtQueue::Pop::empty;
    Position at = next_;
    for (std::uint16_t slots = 1; slots <= setup_.size; ++slots) {
      auto d = loadLe<PackedDescriptor>(ring_ + 16 * at.index);
      out.id_ = d.id;
      out.slots_ = slots;
      at.advance(1, setup_.size);
      if ((d.flags & descriptor::indirect) != 0) {
        if (slots != 1 || (d.flags & descriptor::next) != 0 || !walkIndirect(out, d)) return VirtQueue::Pop::broken;
      } else if (!add(out, d.address, d.length, (d.flags & descriptor::write) != 0)) {
        return VirtQueue::Pop::broken;
      }
      if ((d.flags & descriptor::next) == 0) {
        next_ = at;
        return VirtQueue::Pop::chain;
      }
    }
    return VirtQueue::Pop::broken;  // a chain longer than the ring
  }

  void push(const Chain& chain, std::uint32_t written, bool more) override {
    std::byte* d = ring_ + 16 * used_.index;
    storeShared<std::uint32_t>(d + 8, written);
    storeShared<std::uint16_t>(d + 12, chain.id_);
    std::uint16_t flags = used_.wrap ? descriptor::available | descriptor::used : 0;
    if (written != 0) flags |= descriptor::write;
    if (more && !heldFlags_) {
      heldFlags_ = d + 14;
      heldValue_ = flags;
    } else {
      storeShared<std::uint16_t>(d + 14, flags, std::memory_order_release);
    }
    // The driver looks at them in order: the first one's flags show all.
    if (!more && heldFlags_)
      storeShared<std::uint16_t>(std::exchange(heldFlags_, nullptr), heldValue_, std::memory_order_release);
    used_.advance(chain.slots_, setup_.size);
    pushed_ = static_cast<std::uint16_t>(pushed_ + chain.slots_);
  }

  bool interruptWanted() override {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::uint16_t pushed = std::exchange(pushed_, 0);
    if (pushed == 0) return false;
    std::uint16_t flags = loadShared<std::uint16_t>(driverEvent_ + 2) & 3;
    if (flags == kEventsOff) return false;
    if (flags != kEventAtDescriptor || !setup_.eventIndex) return true;
    std::uint16_t event = loadShared<std::uint16_t>(driverEvent_);
    // As in the split ring, with the event brought onto the same turn of the ring as the position.
    auto offset = static_cast<std::uint16_t>(event & 0x7fff);
    if (((event & 0x8000) != 0) != used_.wrap) offset = static_cast<std::uint16_t>(offset - setup_.size);
    return eventPassed(offset, used_.index, static_cast<std::uint16_t>(used_.index - pushed));
  }

  bool armNotification() override {
    if (setup_.eventIndex) {
      storeShared<std::uint16_t>(deviceEvent_, static_cast<std::uint16_t>(next_.index | (next_.wrap ? 0x8000 : 0)));
      storeShared<std::uint16_t>(deviceEvent_ + 2, kEventAtDescriptor, std::memory_order_release);
    } else {
      storeShared<std::uint16_t>(deviceEvent_ + 2, kEventsOn);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return isAvailable(next_);
  }

  void disarmNotification() override { storeShared<std::uint16_t>(deviceEvent_ + 2, kEventsOff); }

  void transfer(state::Archive& a, std::uint16_t, std::uint16_t heldSlots) override {
    Position next = next_, used = used_;
    next.goBack(heldSlots, setup_.size);
    a(next.index, next.wrap, used.index, used.wrap, pushed_);
    a.require(next.index < setup_.size && used.index < setup_.size, "a place in a packed ring");
    if (!a.mayApply()) return;
    next_ = next;
    used_ = used;
  }

 private:
  bool isAvailable(Position at) const {
    std::uint16_t flags = loadShared<std::uint16_t>(ring_ + 16 * at.index + 14, std::memory_order_acquire);
    bool available = (flags & descriptor::available) != 0, used = (flags & descriptor::used) != 0;
    return available == at.wrap && used != at.wrap;
  }

  bool walkIndirect(Chain& out, const PackedDescriptor& d) {
    if (!setup_.indirect || d.length == 0 || d.length % 16 != 0 || d.length / 16 > 32768) return false;
    const std::byte* table = memory_.span(Gpa{d.address}, d.length);
    if (!table) return false;
    for (std::uint32_t i = 0; i < d.length / 16; ++i) {
      auto entry = loadLe<PackedDescriptor>(table + 16 * i);
      if ((entry.flags & descriptor::indirect) != 0) return false;
      if (!add(out, entry.address, entry.length, (entry.flags & descriptor::write) != 0)) return false;
    }
    return true;
  }

  std::byte *ring_, *driverEvent_, *deviceEvent_;
  Position next_, used_;
  std::byte* heldFlags_ = nullptr;  // of what was pushed with `more` first
  std::uint16_t heldValue_ = 0;
  std::uint16_t pushed_ = 0;  // descriptors, since the last interruptWanted()
};

std::unique_ptr<VirtQueue::Ring> makePackedRing(GuestMemory& memory, const QueueSetup& setup) {
  if (setup.descriptors % 16 != 0 || setup.driverArea % 4 != 0 || setup.deviceArea % 4 != 0) return nullptr;
  std::byte* ring = memory.span(Gpa{setup.descriptors}, 16ull * setup.size);
  std::byte* driver = memory.span(Gpa{setup.driverArea}, 4);
  std::byte* device = memory.span(Gpa{setup.deviceArea}, 4);
  if (!ring || !driver || !device) return nullptr;
  return std::make_unique<PackedRing>(memory, setup, ring, driver, device);
}

}  // namespace lodge::virtio
