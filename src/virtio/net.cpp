// SPDX-License-Identifier: Apache-2.0
#include "virtio/net.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/bytes.h"
#include "net/offload.h"
#include "virtio/net_by_vhost.h"

namespace lodge::virtio {

namespace {

constexpr std::uint8_t kNeedsChecksum = 1, kDataValid = 2;
constexpr std::uint8_t kGsoTcp6 = 4;
/// How long a driver may take to find out by itself that frames were sent, and for how many buffers: that share of its
/// ring, and so many at most.
constexpr Nanoseconds kSignalDelay = 1'000'000;
constexpr unsigned kMostUnsignalled = 64, kUnsignalledShare = 4;
/// struct virtio_net_config (5.1.4).
struct [[gnu::packed]] Config {
  std::uint8_t mac[6];
  std::uint16_t status;
  std::uint16_t maxPairs;
  std::uint16_t mtu;
};

/// The same for both directions of a flow: addresses and, of TCP and UDP without fragments, ports.
std::uint32_t flowHash(std::span<const std::uint8_t> frame) {
  constexpr std::size_t kEthernet = 14, kIp4Header = 20, kIp6Header = 40;
  constexpr std::uint8_t kTcp = 6, kUdp = 17;
  if (frame.size() < kEthernet + kIp4Header) return 0;
  std::uint32_t hash = 0;
  auto mix = [&](std::size_t at) { hash ^= loadLe<std::uint32_t>(&frame[at]); };
  std::size_t transport = 0;
  std::uint16_t type = loadBe<std::uint16_t>(&frame[12]);
  if (type == 0x0800) {
    mix(26);
    mix(30);
    bool fragment = (loadBe<std::uint16_t>(&frame[20]) & 0x3fff) != 0;
    if (!fragment && (frame[23] == kTcp || frame[23] == kUdp)) transport = kEthernet + (frame[14] & 15u) * 4;
  } else if (type == 0x86dd && frame.size() >= kEthernet + kIp6Header) {
    for (std::size_t at = 22; at < kEthernet + kIp6Header; at += 4) mix(at);
    if (frame[20] == kTcp || frame[20] == kUdp) transport = kEthernet + kIp6Header;
  }
  if (transport != 0 && frame.size() >= transport + 4)
    hash ^= loadLe<std::uint16_t>(&frame[transport]) ^ loadLe<std::uint16_t>(&frame[transport + 2]);
  constexpr std::uint32_t kGolden = 0x9e3779b1;
  return (hash * kGolden) >> 16;
}

}  // namespace

NetDevice::NetDevice(GuestMemory& memory, EventLoop& loop, std::unique_ptr<NetBackend> backend, const MacAddress& mac,
                     unsigned pairs)
    : QueuedDevice(memory, 2 * pairs + 1),
      memory_(memory),
      loop_(loop),
      backend_(std::move(backend)),
      mac_(mac),
      maxPairs_(pairs),
      pairStates_(pairs) {
  forgetFlows();
  signalTimer_ = loop_.makeTimer([this] {
    std::lock_guard lock(workMutex_);
    signalsLater_ = false;
    if (live_) signalSent();
  });
  if (auto* by = dynamic_cast<VhostBackend*>(backend_.get())) {
    byVhost_ = std::make_unique<ByVhost>(by->vhost(), pairs);
    by->vhost().onUsed([this](unsigned pair) {
      std::lock_guard lock(workMutex_);
      if (byVhost_->running) reap(pair);
    });
    return;
  }
  backend_->setReceiver(
      [this](std::span<const std::uint8_t> frame, const FrameOffload& o) { return receive(frame, o); });
}

NetDevice::~NetDevice() {
  *alive_ = false;
  signalTimer_.reset();
  NetDevice::reset();
}

std::uint64_t NetDevice::features() const {
  std::uint64_t bits = bit::checksum | bit::guestChecksum | bit::mtu | bit::mac | bit::hostTso4 | bit::hostTso6 |
                       bit::mergeable | bit::linkStatus | bit::controlQueue | bit::controlRx | bit::controlMac;
  if (maxPairs_ > 1) bits |= bit::multiQueue;
  if (backend_->supportsOffload()) bits |= bit::guestTso4 | bit::guestTso6;
  return bits;
}

std::uint32_t NetDevice::readConfig(std::uint64_t offset, unsigned size) {
  Config c{};
  std::memcpy(c.mac, mac_.data(), 6);
  c.status = 1;  // link up
  c.maxPairs = static_cast<std::uint16_t>(maxPairs_);
  c.mtu = static_cast<std::uint16_t>(backend_->mtu());
  return readConfigBytes(&c, sizeof c, offset, size);
}

void NetDevice::activate(std::uint64_t features) {
  QueuedDevice::activate(features);
  live_ = true;
  if (byVhost_) wake();
}

void NetDevice::reset() {
  live_ = false;
  std::lock_guard lock(workMutex_);
  QueuedDevice::reset();
  for (PairState& pair : pairStates_) pair.spare.clear(), pair.unsignalled = 0;
  forgetFlows();
  accepted_.clear();
  pairs_ = 1;
  promiscuous_ = true;
}

unsigned NetDevice::controlQueue() const {
  return (features_ & bit::multiQueue) != 0 ? 2 * maxPairs_ : 2;
}

void NetDevice::notify(unsigned) {
  wake();
}

void NetDevice::wake() {
  if (workWanted_.exchange(true)) return;
  loop_.post([this, alive = alive_] {
    if (*alive) work();
  });
}

std::vector<const Chain*> NetDevice::held(unsigned queue) const {
  std::vector<const Chain*> chains;
  if (byVhost_) return byVhost_->held(queue);
  if (queue % 2 != 0 || queue / 2 >= pairStates_.size()) return chains;
  for (const Chain& chain : pairStates_[queue / 2].spare) chains.push_back(&chain);
  return chains;
}

void NetDevice::transfer(state::Archive& a) {
  std::lock_guard lock(workMutex_);
  QueuedDevice::transfer(a);
  constexpr std::size_t kMostAddresses = 65536 / 6;
  a(mac_, pairs_, promiscuous_, allMulticast_);
  a.require(pairs_ >= 1 && pairs_ <= maxPairs_, "the number of queue pairs");
  accepted_.resize(a.count(accepted_.size(), kMostAddresses, "the number of addresses"));
  for (MacAddress& address : accepted_) a(address);
  if (a.loading() && !a.ok()) NetDevice::reset();
}

void NetDevice::work() {
  workWanted_ = false;
  {
    std::lock_guard lock(workMutex_);
    if (!live_) return;  // a reset that was at work has ended
    if (byVhost_) return workByVhost();
    for (unsigned pair = 0; pair < maxPairs_; ++pair) transmit(2 * pair + 1);
    control();
  }
  backend_->receiverReady();
}

/// Where the network answers at once, the interrupt for the answer has the driver look at what was sent, too, before it
/// asks for another: Linux's does that on its way to the frames that arrived. So what was sent is the driver's again
/// before the answer is, and the second interrupt waits.
void NetDevice::transmit(unsigned queue) {
  if (queue == controlQueue()) return;
  PairState& pair = pairStates_[queue / 2];
  std::uint64_t received = pair.received;
  std::size_t sent = 0, most = std::min(kMostUnsignalled, queueSize(queue) / kUnsignalledShare);
  drain(queue, [&](Chain chain) {
    bool good = copyFrame(chain);
    sent += chain.readable.size();
    finishQuietly(queue, std::move(chain), 0);
    if (good) sendFrame(queue / 2);
  });
  if (sent == 0 && pair.unsignalled != 0) return;
  if (pair.received != received && pair.unsignalled + sent < most) {
    pair.unsignalled += sent;
    if (!std::exchange(signalsLater_, true)) signalTimer_->arm(loop_.clock().now() + kSignalDelay);
    return;
  }
  pair.unsignalled = 0;
  signalIfWanted(queue);
}

/// What drivers did not find out by themselves.
void NetDevice::signalSent() {
  for (unsigned pair = 0; pair < maxPairs_; ++pair) {
    if (std::exchange(pairStates_[pair].unsignalled, 0) != 0) signalIfWanted(2 * pair + 1);
  }
}

/// Header and frame, to `buffer_`. False: that is none.
bool NetDevice::copyFrame(const Chain& chain) {
  if (chain.readableBytes <= sizeof(Header) || chain.readableBytes > kMaxFrame + sizeof(Header)) return false;
  buffer_.resize(chain.readableBytes);
  std::size_t at = 0;
  for (const iovec& v : chain.readable) {
    std::memcpy(buffer_.data() + at, v.iov_base, v.iov_len);
    at += v.iov_len;
  }
  return true;
}

/// What is in `buffer_`.
void NetDevice::sendFrame(unsigned pair) {
  Header header{};
  std::memcpy(&header, buffer_.data(), sizeof header);
  std::span<const std::uint8_t> frame = std::span(buffer_).subspan(sizeof header);
  FrameOffload offload;
  offload.needsChecksum = (header.flags & kNeedsChecksum) != 0;
  offload.checksumStart = header.checksumStart;
  offload.checksumOffset = header.checksumOffset;
  offload.segmentation = header.gsoType;
  offload.segmentSize = header.gsoSize;
  offload.headerLength = header.headerLength;
  ++pairStates_[pair].sent;
  if (pairs_ > 1) flows_[flowHash(frame) % kFlows] = static_cast<std::uint8_t>(pair);
  if (backend_->supportsOffload()) return backend_->send(frame, offload);
  finishOffload(frame, offload,
                [&](std::span<const std::uint8_t> finished) { backend_->send(finished, FrameOffload{}); });
}

/// Whether the driver said that it takes frames with this left to do.
bool NetDevice::accepts(const FrameOffload& offload) const {
  if (offload.needsChecksum && (features_ & bit::guestChecksum) == 0) return false;
  if (offload.segmentation == 0) return true;
  return (features_ & (offload.segmentation == kGsoTcp6 ? bit::guestTso6 : bit::guestTso4)) != 0;
}

bool NetDevice::wanted(std::span<const std::uint8_t> frame) const {
  if (promiscuous_ || frame.size() < 6) return true;
  if ((frame[0] & 1) != 0 && allMulticast_) return true;
  if (std::all_of(frame.begin(), frame.begin() + 6, [](std::uint8_t b) { return b == 0xff; })) return true;
  auto same = [&](const MacAddress& m) { return std::equal(m.begin(), m.end(), frame.begin()); };
  return same(mac_) || std::any_of(accepted_.begin(), accepted_.end(), same);
}

bool NetDevice::receive(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  std::lock_guard lock(workMutex_);
  if (!live_) return true;  // nobody listens: dropped, as on a cable to a card that is off
  if (accepts(offload)) return deliver(frame, offload);
  // What finds no room is lost: there would be no telling which part.
  finishOffload(frame, offload, [&](auto finished) { deliver(finished, FrameOffload{}); });
  return true;
}

/// The pair that the driver sends the flow on; the hash decides of flows that it did not send anything of yet.
unsigned NetDevice::pairFor(std::span<const std::uint8_t> frame) const {
  unsigned pairs = pairs_;
  if (pairs == 1) return 0;
  std::uint32_t hash = flowHash(frame);
  std::uint8_t known = flows_[hash % kFlows];
  return known < pairs ? known : hash % pairs;
}

bool NetDevice::deliver(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (!wanted(frame)) return true;
  unsigned pair = pairFor(frame), queue = 2 * pair;
  std::vector<Chain> chains;
  Room room = popBuffers(queue, frame.size() + sizeof(Header), chains);
  if (room == Room::notYet) return false;
  if (room == Room::never) {
    ++pairStates_[pair].lost;
    return true;
  }
  Header header{};
  header.buffers = static_cast<std::uint16_t>(chains.size());
  if (offload.needsChecksum) {
    header.flags = kNeedsChecksum;
    header.checksumStart = offload.checksumStart;
    header.checksumOffset = offload.checksumOffset;
  } else if ((features_ & bit::guestChecksum) != 0) {
    header.flags = kDataValid;
  }
  header.gsoType = offload.segmentation;
  header.gsoSize = offload.segmentSize;
  header.headerLength = offload.headerLength;

  const std::span<const std::uint8_t> pieces[2] = {{reinterpret_cast<const std::uint8_t*>(&header), sizeof header},
                                                   frame};
  std::size_t piece = 0, at = 0;
  std::vector<Finished> finished;
  for (Chain& chain : chains) {
    std::uint32_t filled = 0;
    for (const iovec& v : chain.writable) {
      for (std::size_t room = v.iov_len; room != 0 && piece < 2;) {
        std::size_t part = std::min(room, pieces[piece].size() - at);
        std::memcpy(static_cast<char*>(v.iov_base) + (v.iov_len - room), pieces[piece].data() + at, part);
        room -= part;
        at += part;
        filled += static_cast<std::uint32_t>(part);
        if (at == pieces[piece].size()) ++piece, at = 0;
      }
    }
    finished.push_back({std::move(chain), filled});
  }
  finishAll(queue, finished);
  ++pairStates_[pair].received;
  return true;
}

/// Buffers for `bytes`: one, or with mergeable buffers as many as it takes. Those that do not suffice are kept for the
/// next try; never: the whole ring is not enough, or without mergeable buffers the next of it.
NetDevice::Room NetDevice::popBuffers(unsigned queue, std::size_t bytes, std::vector<Chain>& out) {
  bool mergeable = (features_ & bit::mergeable) != 0;
  std::vector<Chain>& spare = pairStates_[queue / 2].spare;
  std::size_t room = 0, slots = 0, count = 0;
  for (; room < bytes; ++count) {
    if (count == spare.size()) {
      if (slots != 0 && slots >= queueSize(queue)) return Room::never;
      Chain chain;
      if (!popChain(queue, chain)) return Room::notYet;
      spare.push_back(std::move(chain));
    }
    room += spare[count].writableBytes;
    slots += spare[count].slots();
    if (!mergeable && room < bytes) {
      finish(queue, std::move(spare[count]), 0);
      spare.clear();
      return Room::never;
    }
  }
  auto end = spare.begin() + static_cast<std::ptrdiff_t>(count);
  out.assign(std::make_move_iterator(spare.begin()), std::make_move_iterator(end));
  spare.erase(spare.begin(), end);
  return Room::enough;
}

void NetDevice::control() {
  if ((features_ & bit::controlQueue) == 0) return;
  unsigned queue = controlQueue();
  drain(queue, [&](Chain chain) {
    bool ok = command(chain);
    applyFilter();
    std::uint32_t written = 0;
    if (!chain.writable.empty()) {
      const iovec& last = chain.writable.back();
      static_cast<std::uint8_t*>(last.iov_base)[last.iov_len - 1] = ok ? 0 : 1;
      written = static_cast<std::uint32_t>(std::min<std::uint64_t>(chain.writableBytes, 1));
    }
    finish(queue, std::move(chain), written);
  });
}

/// Control commands (5.1.6.5): receive mode, MAC tables and address, number of queue pairs.
bool NetDevice::command(const Chain& chain) {
  std::vector<std::uint8_t> data;
  for (const iovec& v : chain.readable) {
    auto* p = static_cast<const std::uint8_t*>(v.iov_base);
    if (data.size() + v.iov_len > 65536) return false;
    data.insert(data.end(), p, p + v.iov_len);
  }
  if (data.size() < 3) return false;
  std::span<const std::uint8_t> body = std::span(data).subspan(2);
  switch (data[0] << 8 | data[1]) {
    case 0x0000:
      promiscuous_ = body[0] != 0;
      return true;
    case 0x0001:
      allMulticast_ = body[0] != 0;
      return true;
    case 0x0100: {
      accepted_.clear();
      std::size_t at = 0;
      for (int table = 0; table < 2; ++table) {
        if (at + 4 > body.size()) return false;
        std::size_t count = loadLe<std::uint32_t>(&body[at]);
        at += 4;
        if (count > (body.size() - at) / 6) return false;
        for (; count != 0; --count, at += 6) {
          MacAddress m;
          std::memcpy(m.data(), &body[at], 6);
          accepted_.push_back(m);
        }
      }
      return true;
    }
    case 0x0101:
      if (body.size() != 6) return false;
      std::memcpy(mac_.data(), body.data(), 6);
      return true;
    case 0x0400: {
      unsigned pairs = body.size() >= 2 ? loadLe<std::uint16_t>(body.data()) : 0;
      if (pairs == 0 || pairs > maxPairs_) return false;
      pairs_ = pairs;
      forgetFlows();
      if (byVhost_ && byVhost_->running) byVhost_->net.usePairs(pairs);
      return true;
    }
    default:
      return false;
  }
}

}  // namespace lodge::virtio
