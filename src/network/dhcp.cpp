// SPDX-License-Identifier: Apache-2.0
#include "network/dhcp.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

constexpr std::size_t kOptions = 240;  // fixed part and magic cookie
constexpr std::uint32_t kMagic = 0x63825363;
constexpr Nanoseconds kDeclineTime = 600 * kNanosecondsPerSecond;
constexpr Nanoseconds kOfferTime = 30 * kNanosecondsPerSecond;
constexpr std::size_t kMostLeases = 4096;

enum Message : std::uint8_t { kDiscover = 1, kOffer, kRequest, kDecline, kAck, kNak, kRelease, kInform };
namespace option {
constexpr std::uint8_t kMask = 1, kRouter = 3, kDns = 6, kHostName = 12, kDomain = 15, kMtu = 26, kBroadcast = 28,
                       kWanted = 50, kLeaseTime = 51, kType = 53, kServer = 54, kRenewal = 58, kRebinding = 59,
                       kEnd = 255;
}

bool isNameCharacter(std::uint8_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

}  // namespace

struct DhcpServer::Request {
  std::span<const std::uint8_t> message;
  std::uint8_t type = 0;
  MacAddress mac{};
  bool broadcast = false;
  IpAddress current;  ///< ciaddr
  std::optional<IpAddress> wanted, server;
  std::string hostName;

  static std::optional<Request> parse(std::span<const std::uint8_t> m) {
    if (m.size() < kOptions || m[0] != 1 || m[1] != 1 || m[2] != 6) return std::nullopt;
    if (loadBe<std::uint32_t>(&m[236]) != kMagic) return std::nullopt;
    Request r;
    r.message = m;
    r.broadcast = (m[10] & 0x80) != 0;
    r.current = IpAddress::from(m.subspan(12, 4));
    std::copy_n(&m[28], 6, r.mac.begin());
    if (isGroup(r.mac)) return std::nullopt;
    for (std::size_t at = kOptions; at < m.size() && m[at] != option::kEnd;) {
      if (m[at] == 0) {
        ++at;
        continue;
      }
      if (at + 2 > m.size() || at + 2 + m[at + 1] > m.size()) return std::nullopt;
      r.take(m[at], m.subspan(at + 2, m[at + 1]));
      at += 2 + std::size_t{m[at + 1]};
    }
    if (r.type == 0) return std::nullopt;
    return r;
  }

 private:
  void take(std::uint8_t code, std::span<const std::uint8_t> value) {
    if (code == option::kType && value.size() == 1) type = value[0];
    if (code == option::kWanted && value.size() == 4) wanted = IpAddress::from(value);
    if (code == option::kServer && value.size() == 4) server = IpAddress::from(value);
    if (code == option::kHostName && !value.empty() && value.size() <= 63 &&
        std::all_of(value.begin(), value.end(), isNameCharacter))
      hostName.assign(value.begin(), value.end());
  }
};

void DhcpServer::expire() {
  Nanoseconds now = clock_.now();
  std::erase_if(leases_, [&](const auto& e) {
    if (e.second.fixed || e.second.expires > now) return false;
    owners_.erase(e.second.address);
    return true;
  });
  std::erase_if(declined_, [&](const auto& e) { return e.second <= now; });
}

bool DhcpServer::freeFor(const IpAddress& address, const MacAddress& mac) const {
  if (!settings_.subnet.contains(address) || address == settings_.server || address == settings_.subnet.base ||
      address == settings_.subnet.last() || address == settings_.router || address == settings_.nameServer)
    return false;
  auto owner = owners_.find(address);
  if (owner != owners_.end()) return owner->second == mac;
  return declined_.count(address) == 0;
}

std::optional<IpAddress> DhcpServer::choose(const MacAddress& mac, std::optional<IpAddress> wanted,
                                            const Client& client) const {
  auto own = leases_.find(mac);
  if (own != leases_.end()) return own->second.address;
  auto inRange = [&](const IpAddress& a) { return !a.v6 && a >= settings_.first && a <= settings_.last; };
  auto available = [&](const IpAddress& a) {
    // A lease's owner has the address, whoever uses it.
    return freeFor(a, mac) && (!client.used || owners_.count(a) != 0 || !client.used(a));
  };
  if (wanted && inRange(*wanted) && available(*wanted)) return wanted;
  if (leases_.size() >= kMostLeases) return abandoned();
  for (std::uint64_t a = settings_.first.v4(); a <= settings_.last.v4(); ++a) {
    auto address = IpAddress::v4From(static_cast<std::uint32_t>(a));
    if (available(address)) return address;
  }
  return abandoned();
}

/// The address of a machine that has gone, of the one whose lease ends first.
std::optional<IpAddress> DhcpServer::abandoned() const {
  const Lease* first = nullptr;
  for (const auto& [mac, lease] : leases_) {
    if (lease.left && !lease.fixed && (!first || lease.expires < first->expires)) first = &lease;
  }
  return first ? std::optional(first->address) : std::nullopt;
}

void DhcpServer::forget(const MacAddress& mac) {
  auto own = leases_.find(mac);
  if (own == leases_.end()) return;
  owners_.erase(own->second.address);
  leases_.erase(own);
}

Lease& DhcpServer::grant(const Request& request, const IpAddress& address, const Client& client) {
  auto owner = owners_.find(address);
  if (owner != owners_.end() && owner->second != request.mac) forget(MacAddress(owner->second));
  Lease& lease = leases_[request.mac];
  lease.left = false;
  lease.mac = request.mac;
  lease.address = address;
  lease.name = client.name.empty() ? request.hostName : client.name;
  owners_[address] = request.mac;
  return lease;
}

std::optional<DhcpServer::Reply> DhcpServer::answer(std::span<const std::uint8_t> message, const Client& client) {
  auto request = Request::parse(message);
  if (!request || (client.mac && *client.mac != request->mac)) return std::nullopt;
  expire();
  Nanoseconds now = clock_.now();
  Reply out;
  out.to = IpAddress::v4From(0xffffffff);
  out.toMac = kBroadcast;
  auto finish = [&](std::uint8_t type, const IpAddress& address) {
    out.message = reply(*request, type, address);
    if (type != kNak && !request->broadcast) {
      out.to = request->current.unspecified() ? address : request->current;
      out.toMac = request->mac;
    }
    return out;
  };
  if (request->type == kDiscover) {
    auto address = choose(request->mac, request->wanted, client);
    if (!address) return std::nullopt;
    Lease& lease = grant(*request, *address, client);
    lease.expires = std::max(lease.expires, now + kOfferTime);
    return finish(kOffer, *address);
  }
  if (request->type == kRequest) {
    if (request->server && *request->server != settings_.server) return std::nullopt;  // it took another's offer
    IpAddress wanted = request->wanted.value_or(request->current);
    auto own = leases_.find(request->mac);
    bool free = own != leases_.end() ? own->second.address == wanted
                                     : choose(request->mac, wanted, client) == std::optional(wanted);
    if (!free) return finish(kNak, IpAddress{});
    Lease& lease = grant(*request, wanted, client);
    lease.expires = now + settings_.leaseTime;
    out.lease = lease;
    return finish(kAck, wanted);
  }
  auto own = leases_.find(request->mac);
  if (request->type == kDecline && own != leases_.end() && request->wanted == own->second.address) {
    // Somebody without a lease uses the address.
    declined_[own->second.address] = now + kDeclineTime;
    if (!own->second.fixed) forget(request->mac);
  } else if (request->type == kRelease && own != leases_.end() && request->current == own->second.address &&
             !own->second.fixed) {
    forget(request->mac);
  } else if (request->type == kInform && settings_.subnet.contains(request->current)) {
    return finish(kAck, IpAddress{});
  }
  return std::nullopt;
}

std::vector<std::uint8_t> DhcpServer::reply(const Request& request, std::uint8_t type, const IpAddress& yours) const {
  std::vector<std::uint8_t> m(kOptions);
  std::copy_n(request.message.begin(), 8, m.begin());  // header and transaction
  m[0] = 2;
  m[3] = 0;
  m[10] = request.message[10] & 0x80;
  if (type != kNak) std::copy_n(&request.message[12], 4, &m[12]);
  std::copy_n(yours.bytes.begin(), 4, &m[16]);
  std::copy_n(settings_.server.bytes.begin(), 4, &m[20]);
  std::copy_n(&request.message[24], 20, &m[24]);  // relay, hardware address
  storeBe(&m[236], kMagic);
  auto put = [&](std::uint8_t code, std::span<const std::uint8_t> value) {
    m.push_back(code);
    m.push_back(static_cast<std::uint8_t>(value.size()));
    m.insert(m.end(), value.begin(), value.end());
  };
  auto putAddress = [&](std::uint8_t code, const IpAddress& a) { put(code, a.span()); };
  auto putNumber = [&](std::uint8_t code, std::uint32_t n) {
    std::uint8_t b[4];
    storeBe(b, n);
    put(code, b);
  };
  auto putText = [&](std::uint8_t code, const std::string& t) {
    put(code, {reinterpret_cast<const std::uint8_t*>(t.data()), std::min<std::size_t>(t.size(), 200)});
  };
  put(option::kType, {&type, 1});
  putAddress(option::kServer, settings_.server);
  if (type != kNak) {
    putAddress(option::kMask, settings_.subnet.mask());
    putAddress(option::kBroadcast, settings_.subnet.last());
    if (settings_.router) putAddress(option::kRouter, *settings_.router);
    if (settings_.nameServer) putAddress(option::kDns, *settings_.nameServer);
    if (!settings_.domain.empty()) putText(option::kDomain, settings_.domain);
    std::uint8_t mtu[2];
    storeBe(mtu, static_cast<std::uint16_t>(settings_.mtu));
    put(option::kMtu, mtu);
    auto own = leases_.find(request.mac);
    if (own != leases_.end() && !own->second.name.empty()) putText(option::kHostName, own->second.name);
    if (request.type != kInform) {
      auto seconds = static_cast<std::uint32_t>(settings_.leaseTime / kNanosecondsPerSecond);
      putNumber(option::kLeaseTime, seconds);
      putNumber(option::kRenewal, seconds / 2);
      putNumber(option::kRebinding, seconds / 8 * 7);
    }
  }
  m.push_back(option::kEnd);
  if (m.size() < 300) m.resize(300);  // BOOTP's least, which some clients insist on
  return m;
}

bool DhcpServer::reserve(const MacAddress& mac, const IpAddress& address, const std::string& name) {
  expire();
  auto owner = owners_.find(address);
  if (owner != owners_.end() && owner->second != mac) return false;
  auto old = leases_.find(mac);
  if (old != leases_.end()) owners_.erase(old->second.address);
  leases_[mac] = {.mac = mac, .address = address, .name = name, .fixed = true};
  owners_[address] = mac;
  return true;
}

void DhcpServer::left(const MacAddress& mac) {
  auto own = leases_.find(mac);
  if (own == leases_.end()) return;
  own->second.left = true;
  if (!std::exchange(own->second.fixed, false)) return;
  own->second.expires = std::max(own->second.expires, clock_.now());
}

std::optional<Lease> DhcpServer::here(const MacAddress& mac) {
  expire();
  auto own = leases_.find(mac);
  if (own == leases_.end()) return std::nullopt;
  own->second.left = false;
  return own->second;
}

bool DhcpServer::restore(const Lease& lease) {
  if (leases_.size() >= kMostLeases || leases_.count(lease.mac) != 0 || isGroup(lease.mac) || lease.address.v6 ||
      lease.expires <= clock_.now() || owners_.count(lease.address) != 0 || !freeFor(lease.address, lease.mac))
    return false;
  Lease& own = leases_[lease.mac] = lease;
  own.fixed = false;
  own.left = true;  // until its machine comes back
  owners_[lease.address] = lease.mac;
  return true;
}

void DhcpServer::rename(const MacAddress& mac, const std::string& name) {
  auto own = leases_.find(mac);
  if (own != leases_.end()) own->second.name = name;
}

std::vector<Lease> DhcpServer::leases() const {
  std::vector<Lease> all;
  for (const auto& [mac, lease] : leases_) {
    if (lease.fixed || lease.expires > clock_.now()) all.push_back(lease);
  }
  return all;
}

}  // namespace lodge::network
