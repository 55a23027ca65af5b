// SPDX-License-Identifier: Apache-2.0
// Split virtqueues: virtio 1.2, 2.7.
#include "base/bytes.h"
#include "virtio/ring.h"

namespace lodge::virtio {

class SplitRing : public VirtQueue::Ring {
 public:
  SplitRing(GuestMemory& memory, const QueueSetup& setup, std::byte* descriptors, std::byte* available, std::byte* used)
      : Ring(memory, setup), descriptors_(descriptors), available_(available), used_(used) {}

  VirtQueue::Pop pop(Chain& out) override {
    std::uint16_t index = loadShared<std::uint16_t>(available_ + 2, std::memory_order_acquire);
    auto pending = static_cast<std::uint16_t>(index - lastAvailable_);
    if (pending == 0) return VirtQueue::Pop::empty;
    if (pending > setup_.size) return VirtQueue::Pop::broken;
    std::uint16_t head = loadShared<std::uint16_t>(available_ + 4 + 2 * (lastAvailable_ % setup_.size));
    ++lastAvailable_;
    out.id_ = head;
    return walk(out, head) ? VirtQueue::Pop::chain : VirtQueue::Pop::broken;
  }

  void push(const Chain& chain, std::uint32_t written, bool more) override {
    std::byte* element = used_ + 4 + 8 * (usedIndex_ % setup_.size);
    storeShared<std::uint32_t>(element, chain.id_);
    storeShared<std::uint32_t>(element + 4, written);
    ++usedIndex_;
    if (!more) storeShared<std::uint16_t>(used_ + 2, usedIndex_, std::memory_order_release);
  }

  bool interruptWanted() override {
    // The index must be visible before the driver's wish is read (2.7.7.2, 2.7.10.1).
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::uint16_t from = signalled_;
    signalled_ = usedIndex_;
    if (from == usedIndex_) return false;
    if (!setup_.eventIndex) return (loadShared<std::uint16_t>(available_) & 1) == 0;
    return eventPassed(loadShared<std::uint16_t>(available_ + 4 + 2 * setup_.size), usedIndex_, from);
  }

  bool armNotification() override {
    if (setup_.eventIndex) {
      storeShared<std::uint16_t>(used_ + 4 + 8 * setup_.size, lastAvailable_);
    } else {
      storeShared<std::uint16_t>(used_, 0);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return loadShared<std::uint16_t>(available_ + 2, std::memory_order_acquire) != lastAvailable_;
  }

  void disarmNotification() override {
    // With event indices, the old one lies behind and asks for nothing.
    if (!setup_.eventIndex) storeShared<std::uint16_t>(used_, 1);
  }

  void transfer(state::Archive& a, std::uint16_t heldChains, std::uint16_t) override {
    auto next = static_cast<std::uint16_t>(lastAvailable_ - heldChains);
    a(next, usedIndex_, signalled_);
    if (a.mayApply()) lastAvailable_ = next;
  }

 private:
  /// Follows the chain from `head` through at most one indirect table.
  bool walk(Chain& out, std::uint16_t head) {
    const std::byte* table = descriptors_;
    std::uint32_t entries = setup_.size, index = head, left = setup_.size;
    bool indirect = false;
    for (;;) {
      if (index >= entries || left-- == 0) return false;
      if (!indirect) ++out.slots_;
      auto d = loadLe<Descriptor>(table + 16 * index);
      if ((d.flags & descriptor::indirect) != 0) {
        if (!setup_.indirect || indirect || (d.flags & descriptor::next) != 0) return false;
        if (d.length == 0 || d.length % 16 != 0 || d.length / 16 > 32768) return false;
        table = memory_.span(Gpa{d.address}, d.length);
        if (!table) return false;
        entries = left = d.length / 16;
        index = 0;
        indirect = true;
        continue;
      }
      if (!add(out, d.address, d.length, (d.flags & descriptor::write) != 0)) return false;
      if ((d.flags & descriptor::next) == 0) return true;
      index = d.next;
    }
  }

  std::byte *descriptors_, *available_, *used_;
  std::uint16_t lastAvailable_ = 0, usedIndex_ = 0, signalled_ = 0;
};

std::unique_ptr<VirtQueue::Ring> makeSplitRing(GuestMemory& memory, const QueueSetup& setup) {
  if (setup.descriptors % 16 != 0 || setup.driverArea % 2 != 0 || setup.deviceArea % 4 != 0) return nullptr;
  std::byte* descriptors = memory.span(Gpa{setup.descriptors}, 16ull * setup.size);
  std::byte* available = memory.span(Gpa{setup.driverArea}, 6 + 2ull * setup.size);
  std::byte* used = memory.span(Gpa{setup.deviceArea}, 6 + 8ull * setup.size);
  if (!descriptors || !available || !used) return nullptr;
  return std::make_unique<SplitRing>(memory, setup, descriptors, available, used);
}

}  // namespace lodge::virtio
