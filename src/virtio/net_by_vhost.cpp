// SPDX-License-Identifier: Apache-2.0
// The card's work where the host's kernel moves the frames: the driver's buffers go into rings that the kernel serves,
// and come back to the driver when it has.
#include "virtio/net_by_vhost.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"

namespace lodge::virtio {

namespace {

constexpr std::size_t kHeaderSize = VhostNet::kHeaderSize;

/// What makes the kernel give up on a ring never gets into it.
bool takes(bool transmit, const Chain& chain) {
  const auto& buffers = transmit ? chain.readable : chain.writable;
  if (buffers.empty() || buffers.size() > VhostRing::kSize / 4) return false;
  if (transmit) return chain.readableBytes > kHeaderSize && chain.readableBytes <= kMaxFrame + kHeaderSize;
  return chain.readable.empty() && chain.writableBytes > kHeaderSize;
}

}  // namespace

void NetDevice::workByVhost() {
  if (!byVhost_->running) startVhost();
  if (byVhost_->running) {
    for (unsigned queue = 0; queue < 2 * maxPairs_; ++queue) feed(queue);
  }
  control();
}

void NetDevice::startVhost() {
  ByVhost& v = *byVhost_;
  if (v.broken) return;
  // The kernel cannot wait for pieces of a saved machine's memory.
  Status started = memory_.isLoading() ? memory_.finishLoading() : Status();
  VhostNet::Driver driver{.checksum = (features_ & bit::guestChecksum) != 0,
                          .tcp4 = (features_ & bit::guestTso4) != 0,
                          .tcp6 = (features_ & bit::guestTso6) != 0,
                          .mergeable = (features_ & bit::mergeable) != 0};
  if (started) started = v.net.start(std::span(memory_.deviceView(), memory_.backingSize()), driver);
  v.running = started.ok();
  v.broken = !started;
  if (!started) return log(LogLevel::error, "a network card has no network: {}", started.error().message());
  std::fill(v.left.begin(), v.left.end(), 0u);
  v.net.usePairs(pairs_);
  applyFilter();
}

/// The kernel stops; what it had served goes to the driver, the rest waits in the order in which it was popped.
void NetDevice::haltVhost() {
  ByVhost& v = *byVhost_;
  if (!std::exchange(v.running, false)) return;
  v.net.stop();
  for (unsigned pair = 0; pair < v.net.pairs(); ++pair) {
    reap(pair);
    for (auto direction : {VhostNet::receive, VhostNet::transmit}) {
      std::vector<std::uint16_t> ids = v.net.ring(pair, direction).reset();
      for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
        auto& given = v.given[pair][direction][*id];
        if (given) v.waiting[given->queue].push_front(std::move(given->chain));
        given.reset();
      }
    }
  }
}

int NetDevice::quiesce() {
  std::lock_guard lock(workMutex_);
  signalSent();
  if (!byVhost_) return 0;
  haltVhost();
  wake();  // once the machine has been saved, if it goes on
  return 0;
}

void NetDevice::disableQueue(unsigned queue) {
  std::lock_guard lock(workMutex_);
  if (queue >= 2 * maxPairs_) return QueuedDevice::disableQueue(queue);
  PairState& pair = pairStates_[queue / 2];
  queue % 2 == 0 ? pair.spare.clear() : void(pair.unsignalled = 0);  // chains of the ring that was
  if (!byVhost_) return QueuedDevice::disableQueue(queue);
  haltVhost();
  byVhost_->waiting[queue].clear();
  QueuedDevice::disableQueue(queue);
  wake();
}

void NetDevice::applyFilter() {
  if (!byVhost_ || !byVhost_->running) return;
  std::vector<MacAddress> addresses;
  if (!promiscuous_) {
    addresses = {mac_, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
    addresses.insert(addresses.end(), accepted_.begin(), accepted_.end());
  }
  byVhost_->net.setFilter(addresses, allMulticast_);
}

/// False: no room now; the chain is as it was.
bool NetDevice::handOver(unsigned queue, Chain& chain) {
  ByVhost& v = *byVhost_;
  bool transmit = queue % 2 != 0;
  if (!takes(transmit, chain)) {
    finish(queue, std::move(chain), 0);
    return true;
  }
  auto direction = transmit ? VhostNet::transmit : VhostNet::receive;
  unsigned pair = queue / 2 % v.net.pairs();
  VhostRing& ring = v.net.ring(pair, direction);
  auto id = transmit ? ring.add(chain.readable, {}) : ring.add({}, chain.writable);
  if (!id) return false;
  v.given[pair][direction][*id] = ByVhost::Given{std::move(chain), queue};
  return true;
}

/// Buffers of a queue of the driver's into the kernel's ring, as many as there is room for.
void NetDevice::feed(unsigned queue) {
  ByVhost& v = *byVhost_;
  bool transmit = queue % 2 != 0;
  if (!transmit && queue / 2 >= v.net.pairs()) return;  // nothing arrives there
  auto& waiting = v.waiting[queue];
  while (!waiting.empty() && handOver(queue, waiting.front())) waiting.pop_front();
  for (unsigned served = 0; waiting.empty(); ++served) {
    if (served == VhostRing::kSize) {  // some were refused, and the driver may never end
      wake();
      break;
    }
    Chain chain;
    if (!popChain(queue, chain)) break;
    if (!handOver(queue, chain)) waiting.push_back(std::move(chain));
  }
  v.net.kick(queue / 2 % v.net.pairs(), transmit ? VhostNet::transmit : VhostNet::receive);
}

/// What the kernel has served goes back to the driver, and more of the driver's into its place.
void NetDevice::reap(unsigned pair) {
  ByVhost& v = *byVhost_;
  for (auto direction : {VhostNet::transmit, VhostNet::receive}) {
    std::vector<std::vector<Finished>> finished(maxPairs_);
    while (auto used = v.net.ring(pair, direction).take()) {
      auto& given = v.given[pair][direction][used->id];
      if (!given) continue;
      unsigned number = given->queue / 2;
      if (direction == VhostNet::transmit) {
        ++pairStates_[number].sent;
      } else if (v.left[pair] != 0) {
        --v.left[pair];
      } else {
        ++pairStates_[number].received;
        Header header{};
        const iovec& first = given->chain.writable[0];
        std::memcpy(&header, first.iov_base, std::min(first.iov_len, sizeof header));
        if ((features_ & bit::mergeable) != 0 && header.buffers > 1) v.left[pair] = header.buffers - 1u;
      }
      finished[number].push_back({std::move(given->chain), used->written});
      given.reset();
    }
    for (unsigned number = 0; number < maxPairs_; ++number) {
      unsigned queue = 2 * number + (direction == VhostNet::transmit ? 1 : 0);
      if (finished[number].empty()) continue;
      finishAll(queue, finished[number]);
      if (v.running) feed(queue);
    }
  }
}

}  // namespace lodge::virtio
