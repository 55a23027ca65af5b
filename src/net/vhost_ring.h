// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace lodge {

/// A split virtqueue in this process's own memory (virtio 1.2, 2.7), seen from the driver's side; its device is the
/// host's kernel, and its descriptors hold this process's addresses. Not thread-safe.
///   auto id = ring.add({}, buffers);  ...  while (auto used = ring.take()) ...
class VhostRing {
 public:
  static constexpr std::uint16_t kSize = 1024;

  VhostRing();
  ~VhostRing();
  VhostRing(const VhostRing&) = delete;
  VhostRing& operator=(const VhostRing&) = delete;

  /// Makes a chain available; its id, below kSize, is free until take() or reset() gives it back. Nothing if there is
  /// no room, or no buffer.
  std::optional<std::uint16_t> add(std::span<const iovec> readable, std::span<const iovec> writable);
  struct Used {
    std::uint16_t id;
    std::uint32_t written;  ///< bytes of the writable buffers
  };
  std::optional<Used> take();
  /// Whether the device asked to be told of what was added.
  bool kickWanted() const;
  /// As new; the ids of what was added and not taken, in that order. The device must have stopped.
  std::vector<std::uint16_t> reset();

  const void* descriptors() const;
  const void* available() const;
  const void* used() const;

 private:
  struct Area;
  std::unique_ptr<Area> area_;
  std::vector<std::uint16_t> free_;        // descriptors
  std::vector<std::uint16_t> lengths_;     // of the chains, by id
  std::deque<std::uint16_t> outstanding_;  // ids, oldest first
  std::uint16_t next_ = 0, seen_ = 0;      // the indices of available and used
};

}  // namespace lodge
