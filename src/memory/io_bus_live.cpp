// SPDX-License-Identifier: Apache-2.0
// Lookups of the bus, which may run while a guest's vector registers are live (CMakeLists.txt).
#include "memory/io_bus.h"

namespace lodge {

// The last place that begins at or below `address`, if it reaches so far.
const IoBus::Place* IoBus::placeOf(const Places& places, std::uint64_t address) {
  std::size_t low = 0, high = places.used.load(std::memory_order_relaxed);
  while (low < high) {
    std::size_t middle = (low + high) / 2;
    if (places.all[middle].base.load(std::memory_order_relaxed) <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return nullptr;
  const Place& place = places.all[low - 1];
  std::uint64_t inside = address - place.base.load(std::memory_order_relaxed);
  return inside < place.length.load(std::memory_order_relaxed) ? &place : nullptr;
}

bool IoBus::tryFind(std::uint64_t address, unsigned size, Found& found) const {
  std::uint64_t version = version_.load(std::memory_order_acquire);
  const Places* places = current_.load(std::memory_order_acquire);
  if ((version & 1) != 0) return false;
  found = {};
  if (!places) return true;
  if (const Place* place = placeOf(*places, address)) {
    found.device = place->device.load(std::memory_order_relaxed);
    found.offset = address - place->base.load(std::memory_order_relaxed);
    found.whole = size <= place->length.load(std::memory_order_relaxed) - found.offset;
  } else {
    found.whole = placeOf(*places, address + size - 1) == nullptr;
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return version_.load(std::memory_order_relaxed) == version;
}

bool IoBus::readLive(std::uint64_t address, unsigned size, std::uint64_t& value) const {
  Found found;
  if (!tryFind(address, size, found) || !found.device || !found.whole) return false;
  if (!found.device->readLive(found.offset, size, value)) return false;
  if (size < 8) value &= (std::uint64_t{1} << (8 * size)) - 1;
  return true;
}

bool IoBus::writeLive(std::uint64_t address, unsigned size, std::uint64_t value) const {
  Found found;
  if (!tryFind(address, size, found) || !found.device || !found.whole) return false;
  return found.device->writeLive(found.offset, size, value);
}

}  // namespace lodge
