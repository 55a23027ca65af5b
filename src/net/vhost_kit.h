// SPDX-License-Identifier: Apache-2.0
// The kernel's side of a VhostRing, for tests.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "net/vhost_ring.h"

namespace lodge::testing {

class RingWorker {
 public:
  explicit RingWorker(VhostRing& ring) : ring_(&ring) {}

  struct Chain {
    std::uint16_t id;
    std::vector<iovec> readable, writable;
  };
  /// The next chain that was made available.
  std::optional<Chain> next() {
    auto* available = static_cast<const std::uint16_t*>(ring_->available());
    if (available[1] == at_) return std::nullopt;
    Chain chain{available[2 + at_++ % VhostRing::kSize], {}, {}};
    struct Descriptor {
      std::uint64_t address;
      std::uint32_t length;
      std::uint16_t flags, next;
    };
    auto* table = static_cast<const Descriptor*>(ring_->descriptors());
    for (const Descriptor* d = &table[chain.id];; d = &table[d->next]) {
      ((d->flags & 2) != 0 ? chain.writable : chain.readable)
          .push_back({reinterpret_cast<void*>(static_cast<std::uintptr_t>(d->address)), d->length});
      if ((d->flags & 1) == 0) return chain;
    }
  }
  void done(std::uint16_t id, std::uint32_t written) {
    auto* used = static_cast<std::uint16_t*>(const_cast<void*>(ring_->used()));
    std::uint32_t element[2] = {id, written};
    std::memcpy(used + 2 + 4 * (used[1] % VhostRing::kSize), element, sizeof element);
    ++used[1];
  }
  /// Whether the ring's owner is to kick.
  void wantKicks(bool wanted) { static_cast<std::uint16_t*>(const_cast<void*>(ring_->used()))[0] = wanted ? 0 : 1; }
  void restart() { at_ = 0; }

 private:
  VhostRing* ring_;
  std::uint16_t at_ = 0;
};

}  // namespace lodge::testing
