// SPDX-License-Identifier: Apache-2.0
// The driver's side of a virtqueue, for tests: puts chains into guest memory as a driver would, split or packed.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "memory/guest_memory.h"
#include "virtio/device.h"

namespace lodge::virtio::testing {

struct Buffer {
  std::uint64_t address;
  std::uint32_t length;
  bool writable;
};

class DriverQueue {
 public:
  static constexpr std::uint16_t kSize = 8;

  /// Takes 4 KiB of guest memory from `base` on.
  DriverQueue(GuestMemory& memory, std::uint64_t base, bool packed, bool eventIndex = true) : memory_(memory) {
    setup_ = {kSize, base, base + 0x400, base + 0x800, packed, eventIndex, true};
    (void)memory_.fill(Gpa{base}, std::byte{0}, 4096);
  }
  const QueueSetup& setup() const { return setup_; }
  /// Tells the device where queue `number` is, and turns it on: write(offset, size, value) is to the common
  /// configuration of virtio by PCI (Virtio 1.2, 4.1.4.3).
  template <class Write>
  void install(std::uint16_t number, const Write& write) const {
    write(0x16, 2, number);
    write(0x18, 2, setup_.size);
    write(0x20, 8, setup_.descriptors);
    write(0x28, 8, setup_.driverArea);
    write(0x30, 8, setup_.deviceArea);
    write(0x1c, 2, 1);
  }

  /// Makes a chain available; returns its id.
  std::uint16_t add(const std::vector<Buffer>& buffers, bool indirect = false, std::uint64_t table = 0) {
    return setup_.packed ? addPacked(buffers, indirect, table) : addSplit(buffers, indirect, table);
  }
  struct Used {
    std::uint32_t id, written;
  };
  /// Asks for an interrupt when the next chain comes back that it has not taken.
  void askForInterrupt() {
    auto place = static_cast<std::uint16_t>(usedAt_ | (usedWrap_ ? 0x8000 : 0));
    put(setup_.packed ? setup_.driverArea : setup_.driverArea + 4 + 2 * kSize, setup_.packed ? place : seen_);
    if (setup_.packed) put(setup_.driverArea + 2, std::uint16_t{2});
  }
  std::optional<Used> take() { return setup_.packed ? takePacked() : takeSplit(); }

  template <class T>
  void put(std::uint64_t address, T value) {
    (void)memory_.writeObject(Gpa{address}, value);
  }
  template <class T>
  T get(std::uint64_t address) const {
    T value{};
    (void)memory_.readObject(Gpa{address}, value);
    return value;
  }

 private:
  std::uint16_t addSplit(const std::vector<Buffer>& buffers, bool indirect, std::uint64_t table) {
    std::uint16_t head = nextSlot_;
    std::uint64_t at = indirect ? table : setup_.descriptors;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      std::uint16_t slot = indirect ? static_cast<std::uint16_t>(i) : nextSlot_++ % kSize;
      bool last = i + 1 == buffers.size();
      auto flags =
          static_cast<std::uint16_t>((buffers[i].writable ? descriptor::write : 0) | (last ? 0 : descriptor::next));
      auto next = static_cast<std::uint16_t>(indirect ? i + 1 : nextSlot_ % kSize);
      put(at + 16 * slot, Descriptor{buffers[i].address, buffers[i].length, flags, next});
    }
    head %= kSize;
    if (indirect) {
      head = nextSlot_++ % kSize;
      put(setup_.descriptors + 16 * head,
          Descriptor{table, static_cast<std::uint32_t>(16 * buffers.size()), descriptor::indirect, 0});
    }
    put(setup_.driverArea + 4 + 2 * (available_ % kSize), head);
    put(setup_.driverArea + 2, ++available_);
    return head;
  }
  std::optional<Used> takeSplit() {
    if (get<std::uint16_t>(setup_.deviceArea + 2) == seen_) return std::nullopt;
    std::uint64_t at = setup_.deviceArea + 4 + 8 * (seen_++ % kSize);
    return Used{get<std::uint32_t>(at), get<std::uint32_t>(at + 4)};
  }

  std::uint16_t addPacked(const std::vector<Buffer>& buffers, bool indirect, std::uint64_t table) {
    std::uint16_t id = nextId_++;
    std::vector<Buffer> ring = buffers;
    if (indirect) {
      for (std::size_t i = 0; i < buffers.size(); ++i) {
        put(table + 16 * i, PackedDescriptor{buffers[i].address, buffers[i].length, 0,
                                             static_cast<std::uint16_t>(buffers[i].writable ? descriptor::write : 0)});
      }
      ring = {{table, static_cast<std::uint32_t>(16 * buffers.size()), false}};
    }
    for (std::size_t i = 0; i < ring.size(); ++i) {
      std::uint16_t flags = wrap_ ? descriptor::available : descriptor::used;
      if (ring[i].writable) flags |= descriptor::write;
      if (indirect) flags |= descriptor::indirect;
      if (i + 1 < ring.size()) flags |= descriptor::next;
      put(setup_.descriptors + 16 * packedAt_, PackedDescriptor{ring[i].address, ring[i].length, id, flags});
      if (++packedAt_ == kSize) packedAt_ = 0, wrap_ = !wrap_;
    }
    slots_.push_back(static_cast<std::uint16_t>(ring.size()));
    return id;
  }
  std::optional<Used> takePacked() {
    auto d = get<PackedDescriptor>(setup_.descriptors + 16 * usedAt_);
    bool available = (d.flags & descriptor::available) != 0, used = (d.flags & descriptor::used) != 0;
    if (available != used || used != usedWrap_) return std::nullopt;
    std::uint32_t next = usedAt_ + slots_.at(d.id);
    if (next >= kSize) next -= kSize, usedWrap_ = !usedWrap_;
    usedAt_ = static_cast<std::uint16_t>(next);
    return Used{d.id, d.length};
  }

  GuestMemory& memory_;
  QueueSetup setup_;
  std::uint16_t nextSlot_ = 0, available_ = 0, seen_ = 0;
  std::uint16_t nextId_ = 0, packedAt_ = 0, usedAt_ = 0;
  bool wrap_ = true, usedWrap_ = true;
  std::vector<std::uint16_t> slots_;  // by id
};

/// Counts what a device tells its driver, who may look at once.
struct CountingTransport : Transport {
  void signalQueue(unsigned queue) override {
    ++interrupts;
    if (onSignal) onSignal(queue);
  }
  std::function<void(unsigned)> onSignal;
  void signalConfig() override { ++configChanges; }
  void needsReset(unsigned) override { ++resetsWanted; }
  std::atomic<int> interrupts{0}, configChanges{0}, resetsWanted{0};
};

}  // namespace lodge::virtio::testing
