// SPDX-License-Identifier: Apache-2.0
#include "memory/io_bus.h"

#include <fmt/format.h>

#include <algorithm>

namespace lodge {

Status IoBus::add(std::uint64_t base, std::uint64_t length, IoDevice& device, std::string deviceName) {
  std::lock_guard lock(mutex_);
  auto next = std::lower_bound(ranges_.begin(), ranges_.end(), base,
                               [](const Range& r, std::uint64_t b) { return r.base < b; });
  const Range* clash = nullptr;
  if (next != ranges_.end() && next->base - base < length) clash = &*next;
  if (next != ranges_.begin() && base - (next - 1)->base < (next - 1)->length) clash = &*(next - 1);
  if (clash) {
    return Error(ErrorKind::alreadyExists, fmt::format("{} 0x{:x}+0x{:x} for {} overlaps {} at 0x{:x}", name_, base,
                                                       length, deviceName, clash->name, clash->base));
  }
  ranges_.insert(next, Range{base, length, &device, std::move(deviceName)});
  publishLocked();
  return {};
}

void IoBus::remove(std::uint64_t base) {
  std::lock_guard lock(mutex_);
  std::erase_if(ranges_, [&](const Range& r) { return r.base == base; });
  publishLocked();
}

// A sequence lock: readers look again if the version was odd or changes.
void IoBus::publishLocked() {
  if (places_.empty() || places_.back()->all.size() < ranges_.size())
    places_.push_back(std::make_unique<Places>(std::max<std::size_t>(32, 2 * ranges_.size())));
  Places& to = *places_.back();
  version_.fetch_add(1, std::memory_order_acq_rel);
  std::atomic_thread_fence(std::memory_order_release);
  for (std::size_t n = 0; n < ranges_.size(); ++n) {
    to.all[n].base.store(ranges_[n].base, std::memory_order_relaxed);
    to.all[n].length.store(ranges_[n].length, std::memory_order_relaxed);
    to.all[n].device.store(ranges_[n].device, std::memory_order_relaxed);
  }
  to.used.store(ranges_.size(), std::memory_order_relaxed);
  current_.store(&to, std::memory_order_release);
  version_.fetch_add(1, std::memory_order_release);
}

IoBus::Found IoBus::find(std::uint64_t address, unsigned size) const {
  Found found;
  while (!tryFind(address, size, found)) __builtin_ia32_pause();
  return found;
}

std::uint64_t IoBus::read(std::uint64_t address, unsigned size) {
  Found found = find(address, size);
  std::uint64_t ones = size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * size)) - 1;
  if (found.whole) return found.device ? found.device->read(found.offset, size) & ones : ones;
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= read(address + i, 1) << (8 * i);
  return value;
}

void IoBus::write(std::uint64_t address, unsigned size, std::uint64_t value) {
  Found found = find(address, size);
  if (found.whole) {
    if (found.device) found.device->write(found.offset, size, value);
    return;
  }
  for (unsigned i = 0; i < size; ++i) write(address + i, 1, (value >> (8 * i)) & 0xff);
}

}  // namespace lodge
