// SPDX-License-Identifier: Apache-2.0
#include "network/switch.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

constexpr std::size_t kTag = 4;

MacAddress macAt(std::span<const std::uint8_t> frame, std::size_t at) {
  MacAddress mac;
  std::copy_n(frame.begin() + static_cast<std::ptrdiff_t>(at), mac.size(), mac.begin());
  return mac;
}

/// Where the headers moved by `bytes`, so does what the offload points to.
FrameOffload shifted(FrameOffload offload, int bytes) {
  if (offload.needsChecksum) offload.checksumStart = static_cast<std::uint16_t>(offload.checksumStart + bytes);
  if (offload.headerLength != 0) offload.headerLength = static_cast<std::uint16_t>(offload.headerLength + bytes);
  return offload;
}

/// Which ports get copies only.
template <class Ports>
void markMirrors(Ports& ports) {
  for (auto& [id, port] : ports) port.isMirror = false;
  for (auto& [id, port] : ports) {
    if (!port.mirror) continue;
    if (auto to = ports.find(*port.mirror); to != ports.end()) to->second.isMirror = true;
  }
}

}  // namespace

std::uint64_t Switch::key(std::uint16_t vlan, const MacAddress& mac) {
  std::uint64_t k = vlan;
  for (std::uint8_t b : mac) k = k << 8 | b;
  return k;
}

PortId Switch::add(VlanMembership vlans, Output output) {
  PortId id = next_++;
  ports_.emplace(id, Port{.vlans = std::move(vlans),
                          .output = std::move(output),
                          .mirror = {},
                          .floods = TokenBucket(limits_.floodsPerSecond, limits_.floodBurst)});
  return id;
}

void Switch::remove(PortId port) {
  std::erase_if(table_, [&](const auto& e) { return e.second.port == port; });
  std::erase_if(pinned_, [&](const auto& e) { return e.second == port; });
  for (auto& [id, other] : ports_) {
    if (other.mirror == port) other.mirror.reset();
  }
  ports_.erase(port);
  markMirrors(ports_);
}

void Switch::setVlans(PortId port, VlanMembership vlans) {
  auto it = ports_.find(port);
  if (it == ports_.end()) return;
  it->second.vlans = std::move(vlans);
  it->second.learnt = 0;
  std::erase_if(table_, [&](const auto& e) { return e.second.port == port; });
}

void Switch::pin(PortId port, const MacAddress& mac) {
  pinned_[key(0, mac)] = port;
}

void Switch::unpin(PortId port, const MacAddress& mac) {
  auto it = pinned_.find(key(0, mac));
  if (it != pinned_.end() && it->second == port) pinned_.erase(it);
}

void Switch::mirror(PortId from, std::optional<PortId> to) {
  auto it = ports_.find(from);
  if (it == ports_.end() || it->second.mirror == to) return;
  it->second.mirror = to;
  markMirrors(ports_);
}

void Switch::expire() {
  Nanoseconds now = clock_.now();
  if (now - lastExpiry_ < limits_.age / 10) return;
  lastExpiry_ = now;
  std::erase_if(table_, [&](const auto& e) {
    if (now - e.second.seen < limits_.age) return false;
    auto port = ports_.find(e.second.port);
    if (port != ports_.end() && port->second.learnt > 0) --port->second.learnt;
    return true;
  });
}

void Switch::learn(PortId port, std::uint16_t vlan, const MacAddress& mac) {
  if (isGroup(mac)) return;
  auto pin = pinned_.find(key(0, mac));
  if (pin != pinned_.end()) return;
  Nanoseconds now = clock_.now();
  std::uint64_t k = key(vlan, mac);
  auto it = table_.find(k);
  if (it != table_.end() && it->second.port == port) {
    it->second.seen = now;
    return;
  }
  Port& here = ports_.at(port);
  if (here.learnt >= limits_.addressesPerPort) {
    ++addressesRefused_;
    return;
  }
  ++here.learnt;
  if (it != table_.end()) {
    auto old = ports_.find(it->second.port);
    if (old != ports_.end() && old->second.learnt > 0) --old->second.learnt;
  }
  table_[k] = {.port = port, .seen = now};
}

void Switch::copyToMirror(const Port& port, std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (!port.mirror) return;
  auto to = ports_.find(*port.mirror);
  if (to != ports_.end()) to->second.output(frame, offload);
}

void Switch::input(PortId port, std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  auto it = ports_.find(port);
  if (it == ports_.end() || frame.size() < ether::kHeader || it->second.isMirror) return;
  expire();
  copyToMirror(it->second, frame, offload);
  std::uint16_t vlan = it->second.vlans.access;
  if (loadBe<std::uint16_t>(&frame[12]) == ether::kVlan && frame.size() >= ether::kHeader + kTag) {
    std::uint16_t tag = loadBe<std::uint16_t>(&frame[14]) & 0xfff;
    if (tag != 0) {  // 0 is a priority alone
      if (it->second.vlans.trunk.count(tag) == 0) return;
      vlan = tag;
    }
    // Inside the switch frames carry no tag.
    untagged_.assign(frame.begin(), frame.begin() + 12);
    untagged_.insert(untagged_.end(), frame.begin() + 12 + kTag, frame.end());
    std::vector<std::uint8_t> inner = std::exchange(untagged_, {});
    forward(port, vlan, inner, shifted(offload, -static_cast<int>(kTag)));
    untagged_ = std::move(inner);
    return;
  }
  forward(port, vlan, frame, offload);
}

void Switch::forward(PortId from, std::uint16_t vlan, std::span<const std::uint8_t> frame,
                     const FrameOffload& offload) {
  learn(from, vlan, macAt(frame, 6));
  MacAddress to = macAt(frame, 0);
  if (!isGroup(to)) {
    std::optional<PortId> port;
    if (auto pin = pinned_.find(key(0, to)); pin != pinned_.end()) {
      port = pin->second;
    } else if (auto it = table_.find(key(vlan, to)); it != table_.end()) {
      port = it->second.port;
    }
    if (port) {
      if (*port != from) emit(*port, vlan, frame, offload);
      return;
    }
  }
  if (!ports_.at(from).floods.take(clock_.now(), 1)) {
    ++floodsDropped_;
    return;
  }
  // Outputs may add or remove ports of a user's only through the event loop; the list stands still meanwhile.
  std::vector<PortId> all;
  all.reserve(ports_.size());
  for (const auto& [id, port] : ports_) {
    if (id != from && !port.isMirror) all.push_back(id);
  }
  for (PortId id : all) emit(id, vlan, frame, offload);
}

void Switch::emit(PortId to, std::uint16_t vlan, std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  auto it = ports_.find(to);
  if (it == ports_.end() || !it->second.vlans.carries(vlan)) return;
  Port& port = it->second;
  if (vlan == port.vlans.access) {
    copyToMirror(port, frame, offload);
    port.output(frame, offload);
    return;
  }
  std::vector<std::uint8_t> tagged = std::exchange(tagged_, {});
  tagged.assign(frame.begin(), frame.begin() + 12);
  tagged.insert(tagged.end(), {0x81, 0x00, static_cast<std::uint8_t>(vlan >> 8), static_cast<std::uint8_t>(vlan)});
  tagged.insert(tagged.end(), frame.begin() + 12, frame.end());
  FrameOffload moved = shifted(offload, static_cast<int>(kTag));
  copyToMirror(port, tagged, moved);
  port.output(tagged, moved);
  tagged_ = std::move(tagged);
}

std::vector<Switch::Learnt> Switch::table() const {
  std::vector<Learnt> all;
  auto add = [&](std::uint64_t k, PortId port, bool fixed, Nanoseconds seen) {
    Learnt entry{.vlan = static_cast<std::uint16_t>(k >> 48), .port = port, .fixed = fixed, .age = seen};
    for (unsigned i = 0; i < 6; ++i) entry.mac[i] = static_cast<std::uint8_t>(k >> (40 - 8 * i));
    all.push_back(entry);
  };
  for (const auto& [k, port] : pinned_) add(k, port, true, 0);
  for (const auto& [k, entry] : table_) add(k, entry.port, false, clock_.now() - entry.seen);
  return all;
}

}  // namespace lodge::network
