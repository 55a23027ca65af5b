// SPDX-License-Identifier: Apache-2.0
#include "net/vhost_ring.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace lodge {

namespace {

constexpr std::uint16_t kNext = 1, kWrite = 2, kNoNotify = 1;  // virtio 1.2, 2.7.5 and 2.7.8

struct Descriptor {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t flags, next;
};
struct UsedElement {
  std::uint32_t id, length;
};

}  // namespace

/// Aligned as the specification asks for (2.7).
struct VhostRing::Area {
  alignas(16) Descriptor descriptors[kSize];
  struct alignas(2) {
    std::uint16_t flags, index, ring[kSize], usedEvent;
  } available;
  struct alignas(4) {
    std::uint16_t flags, index;
    UsedElement ring[kSize];
    std::uint16_t availableEvent;
  } used;
};

VhostRing::VhostRing() : area_(std::make_unique<Area>()), lengths_(kSize) {
  (void)reset();
}

VhostRing::~VhostRing() = default;

const void* VhostRing::descriptors() const {
  return area_->descriptors;
}
const void* VhostRing::available() const {
  return &area_->available;
}
const void* VhostRing::used() const {
  return &area_->used;
}

std::optional<std::uint16_t> VhostRing::add(std::span<const iovec> readable, std::span<const iovec> writable) {
  std::size_t count = readable.size() + writable.size();
  if (count == 0 || count > free_.size()) return std::nullopt;
  std::uint16_t head = free_.back(), last = head;
  for (std::size_t i = 0; i < count; ++i) {
    bool in = i >= readable.size();
    const iovec& buffer = in ? writable[i - readable.size()] : readable[i];
    std::uint16_t index = free_.back();
    free_.pop_back();
    area_->descriptors[last].next = index;
    area_->descriptors[index] = {reinterpret_cast<std::uintptr_t>(buffer.iov_base),
                                 static_cast<std::uint32_t>(buffer.iov_len),
                                 static_cast<std::uint16_t>((in ? kWrite : 0) | (i + 1 < count ? kNext : 0)), 0};
    last = index;
  }
  lengths_[head] = static_cast<std::uint16_t>(count);
  outstanding_.push_back(head);
  area_->available.ring[next_ % kSize] = head;
  std::atomic_ref(area_->available.index).store(++next_, std::memory_order_release);
  return head;
}

std::optional<VhostRing::Used> VhostRing::take() {
  if (std::atomic_ref(area_->used.index).load(std::memory_order_acquire) == seen_) return std::nullopt;
  const UsedElement& element = area_->used.ring[seen_++ % kSize];
  Used used{static_cast<std::uint16_t>(element.id), element.length};
  auto place = std::find(outstanding_.begin(), outstanding_.end(), used.id);
  if (place == outstanding_.end()) return std::nullopt;
  outstanding_.erase(place);
  std::uint16_t index = used.id;
  for (unsigned left = lengths_[used.id]; left != 0; --left) {
    free_.push_back(index);
    index = area_->descriptors[index].next;
  }
  return used;
}

bool VhostRing::kickWanted() const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return (std::atomic_ref(area_->used.flags).load(std::memory_order_relaxed) & kNoNotify) == 0;
}

std::vector<std::uint16_t> VhostRing::reset() {
  std::vector<std::uint16_t> left(outstanding_.begin(), outstanding_.end());
  outstanding_.clear();
  std::memset(static_cast<void*>(area_.get()), 0, sizeof(Area));
  next_ = seen_ = 0;
  free_.resize(kSize);
  for (std::uint16_t i = 0; i < kSize; ++i) free_[i] = static_cast<std::uint16_t>(kSize - 1 - i);
  return left;
}

}  // namespace lodge
