// SPDX-License-Identifier: Apache-2.0
#include "virtio/virtqueue.h"

#include <algorithm>
#include <bit>

#include "virtio/ring.h"

namespace lodge::virtio {

VirtQueue::VirtQueue(GuestMemory& memory) : memory_(memory) {}
VirtQueue::~VirtQueue() = default;
VirtQueue::VirtQueue(VirtQueue&&) noexcept = default;

bool VirtQueue::enable(const QueueSetup& setup) {
  disable();
  bool sizeAllowed = setup.size != 0 && setup.size <= 32768 && (setup.packed || std::has_single_bit(setup.size));
  if (sizeAllowed) ring_ = setup.packed ? makePackedRing(memory_, setup) : makeSplitRing(memory_, setup);
  size_ = ring_ ? setup.size : 0;
  return ring_ != nullptr;
}

void VirtQueue::disable() {
  ring_.reset();
  size_ = 0;
  broken_ = false;
}

VirtQueue::Pop VirtQueue::pop(Chain& out) {
  out = Chain{};
  if (broken_) return Pop::broken;
  if (!ring_) return Pop::empty;
  Pop result = ring_->pop(out);
  broken_ = result == Pop::broken;
  return result;
}

void VirtQueue::push(Chain chain, std::uint32_t written, bool more) {
  if (!ring_) return;
  std::uint64_t left = written;
  for (const Chain::Range& range : chain.written_) {
    if (left == 0) break;
    std::uint64_t part = std::min(left, range.length);
    memory_.written(Gpa{range.gpa}, part);
    left -= part;
  }
  ring_->push(chain, written, more);
}

void VirtQueue::transfer(state::Archive& a, const std::vector<const Chain*>& held) {
  std::uint16_t slots = 0;
  for (const Chain* chain : held) slots = static_cast<std::uint16_t>(slots + chain->slots_);
  bool enabled = ring_ != nullptr;
  a(enabled, broken_);
  a.require(enabled == (ring_ != nullptr), "a queue that is not there");
  if (ring_ && a.ok()) ring_->transfer(a, static_cast<std::uint16_t>(held.size()), slots);
}

bool VirtQueue::interruptWanted() {
  return ring_ && ring_->interruptWanted();
}
bool VirtQueue::armNotification() {
  return ring_ && !broken_ && ring_->armNotification();
}
void VirtQueue::disarmNotification() {
  if (ring_) ring_->disarmNotification();
}

bool VirtQueue::Ring::add(Chain& chain, std::uint64_t address, std::uint32_t length, bool writable) {
  if (!writable && !chain.writable.empty()) return false;
  if (length == 0) return true;
  // One buffer may cross from RAM below the hole to RAM above it only by lying outside both: a guest cannot see them
  // adjoin.
  std::byte* host = memory_.span(Gpa{address}, length);
  if (!host) return false;
  std::uint64_t& total = writable ? chain.writableBytes : chain.readableBytes;
  total += length;
  if (total > kMaxChainBytes) return false;
  (writable ? chain.writable : chain.readable).push_back({host, length});
  if (writable) chain.written_.push_back({address, length});
  return true;
}

}  // namespace lodge::virtio
