// SPDX-License-Identifier: Apache-2.0
#include "memory/io_bus.h"

#include <fmt/format.h>

#include <algorithm>

namespace lodge {

Status IoBus::add(std::uint64_t base, std::uint64_t length, IoDevice& device, std::string deviceName) {
  std::unique_lock lock(mutex_);
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
  return {};
}

void IoBus::remove(std::uint64_t base) {
  std::unique_lock lock(mutex_);
  std::erase_if(ranges_, [&](const Range& r) { return r.base == base; });
}

const IoBus::Range* IoBus::findLocked(std::uint64_t address) const {
  auto next = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                               [](std::uint64_t a, const Range& r) { return a < r.base; });
  if (next == ranges_.begin()) return nullptr;
  const Range& range = *(next - 1);
  return address - range.base < range.length ? &range : nullptr;
}

bool IoBus::find(std::uint64_t address, unsigned size, IoDevice*& device, std::uint64_t& offset, bool& whole) const {
  std::shared_lock lock(mutex_);
  const Range* range = findLocked(address);
  if (!range) {
    whole = findLocked(address + size - 1) == nullptr;
    return false;
  }
  device = range->device;
  offset = address - range->base;
  whole = size <= range->length - offset;
  return true;
}

std::uint64_t IoBus::read(std::uint64_t address, unsigned size) {
  IoDevice* device = nullptr;
  std::uint64_t offset = 0;
  bool whole = true;
  bool found = find(address, size, device, offset, whole);
  std::uint64_t ones = size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * size)) - 1;
  if (whole) return found ? device->read(offset, size) & ones : ones;
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= read(address + i, 1) << (8 * i);
  return value;
}

void IoBus::write(std::uint64_t address, unsigned size, std::uint64_t value) {
  IoDevice* device = nullptr;
  std::uint64_t offset = 0;
  bool whole = true;
  bool found = find(address, size, device, offset, whole);
  if (whole) {
    if (found) device->write(offset, size, value);
    return;
  }
  for (unsigned i = 0; i < size; ++i) write(address + i, 1, (value >> (8 * i)) & 0xff);
}

}  // namespace lodge
