// SPDX-License-Identifier: Apache-2.0
#include "device/msix.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/units.h"

namespace lodge {

namespace {
constexpr std::uint64_t kEntrySize = 16;
}

MsixTable::MsixTable(unsigned vectors)
    : pbaOffset_(static_cast<std::uint32_t>(alignUp(vectors * kEntrySize, 2048))),
      barSize_(std::max<std::uint64_t>(kPageSize, std::bit_ceil(pbaOffset_ + alignUp(vectors, 64) / 8))),
      entries_(vectors, Entry{0, 0, 0, kMasked}),
      pending_((vectors + 63) / 64),
      routes_(vectors) {}

MsixTable::~MsixTable() {
  for (MsiRoute& route : routes_) {
    if (route.known) router_->dropRoute(route);
  }
}

void MsixTable::setSink(MsiSink* sink) {
  std::lock_guard lock(mutex_);
  sink_ = sink;
  router_ = dynamic_cast<MsiRouter*>(sink);
}

void MsixTable::updateRoutesLocked() {
  for (unsigned vector = 0; vector < vectors(); ++vector) updateRouteLocked(vector);
}

/// After anything that decides whether, and what, the vector sends.
void MsixTable::updateRouteLocked(unsigned vector) {
  if (!router_) return;
  const Entry& entry = entries_[vector];
  MsiRoute& route = routes_[vector];
  std::uint64_t address = std::uint64_t{entry.addressHigh} << 32 | entry.addressLow;
  bool open = enabled() && openLocked(vector);
  if (route.known && (!open || route.address != address || route.data != entry.data)) router_->dropRoute(route);
  if (!open || route.known) return;
  route.address = address;
  route.data = entry.data;
  router_->setRoute(route);
}

void MsixTable::setControl(bool enabled, bool functionMask, bool busMaster) {
  std::lock_guard lock(mutex_);
  enabled_.store(enabled, std::memory_order_release);
  blocked_ = functionMask || !busMaster;
  updateRoutesLocked();
  if (!enabled || blocked_) return;
  for (unsigned vector = 0; vector < vectors(); ++vector) sendPendingLocked(vector);
}

void MsixTable::signal(unsigned vector) {
  std::lock_guard lock(mutex_);
  if (!enabled() || vector >= vectors()) return;
  if (openLocked(vector)) {
    sendLocked(vector);
  } else {
    pending_[vector / 64] |= std::uint64_t{1} << (vector % 64);
  }
}

void MsixTable::sendLocked(unsigned vector) {
  const Entry& entry = entries_[vector];
  if (routes_[vector].known) return router_->signal(routes_[vector]);
  if (sink_) sink_->sendMsi(std::uint64_t{entry.addressHigh} << 32 | entry.addressLow, entry.data);
}

void MsixTable::sendPendingLocked(unsigned vector) {
  std::uint64_t bit = std::uint64_t{1} << (vector % 64);
  if ((pending_[vector / 64] & bit) == 0 || !enabled() || !openLocked(vector)) return;
  pending_[vector / 64] &= ~bit;
  sendLocked(vector);
}

void MsixTable::reset() {
  std::lock_guard lock(mutex_);
  enabled_.store(false, std::memory_order_release);
  blocked_ = true;
  std::fill(entries_.begin(), entries_.end(), Entry{0, 0, 0, kMasked});
  std::fill(pending_.begin(), pending_.end(), 0);
  updateRoutesLocked();
}

void MsixTable::transfer(state::Archive& a) {
  std::lock_guard lock(mutex_);
  for (Entry& e : entries_) {
    a(e.addressLow, e.addressHigh, e.data, e.control);
    e.addressLow &= ~3u;
    e.control &= kMasked;
  }
  for (std::uint64_t& word : pending_) a(word);
  if (unsigned odd = vectors() % 64; odd != 0) pending_.back() &= (std::uint64_t{1} << odd) - 1;
  if (a.mayApply()) updateRoutesLocked();
}

std::uint64_t MsixTable::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  std::uint64_t value = 0;
  auto copyFrom = [&](const void* area, std::uint64_t length, std::uint64_t at) {
    if (at >= length) return;
    std::memcpy(&value, static_cast<const std::byte*>(area) + at, std::min<std::uint64_t>(size, length - at));
  };
  if (offset < pbaOffset_) {
    copyFrom(entries_.data(), entries_.size() * kEntrySize, offset);
  } else {
    copyFrom(pending_.data(), pending_.size() * sizeof(pending_[0]), offset - pbaOffset_);
  }
  return value;
}

void MsixTable::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(mutex_);
  std::uint64_t length = entries_.size() * kEntrySize;
  if (offset >= length) return;  // the pending bits are read-only
  std::uint64_t count = std::min<std::uint64_t>(size, length - offset);
  std::memcpy(reinterpret_cast<std::byte*>(entries_.data()) + offset, &value, count);
  auto first = static_cast<unsigned>(offset / kEntrySize);
  auto last = static_cast<unsigned>((offset + count - 1) / kEntrySize);
  for (unsigned vector = first; vector <= last; ++vector) {
    entries_[vector].addressLow &= ~3u;
    entries_[vector].control &= kMasked;
    updateRouteLocked(vector);
    sendPendingLocked(vector);
  }
}

}  // namespace lodge
