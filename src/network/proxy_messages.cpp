// SPDX-License-Identifier: Apache-2.0
#include "network/proxy_messages.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/text.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

constexpr std::size_t kLongestHeader = 32768;
constexpr std::uint8_t kTypeV4 = 1, kTypeName = 3, kTypeV6 = 4;

bool isHostName(std::string_view name) {
  return !name.empty() && name.size() <= 253 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

/// An address type, an address and a port at the beginning of `bytes`.
Reading readTarget(std::span<const std::uint8_t> bytes, std::size_t& length, ProxyTarget& target) {
  if (bytes.empty()) return Reading::incomplete;
  std::size_t at = 1, size = 0;
  if (bytes[0] == kTypeName) {
    if (bytes.size() < 2) return Reading::incomplete;
    size = bytes[1];
    at = 2;
  } else if (bytes[0] == kTypeV4 || bytes[0] == kTypeV6) {
    size = bytes[0] == kTypeV4 ? 4 : 16;
  } else {
    return Reading::wrong;
  }
  if (bytes.size() < at + size + 2) return Reading::incomplete;
  auto value = bytes.subspan(at, size);
  target = {};
  target.port = loadBe<std::uint16_t>(&bytes[at + size]);
  length = at + size + 2;
  if (bytes[0] != kTypeName) {
    target.address = IpAddress::from(value);
    return Reading::whole;
  }
  std::string name(value.begin(), value.end());
  target.address = ipFrom(name);
  if (target.address) return Reading::whole;
  if (!isHostName(name)) return Reading::wrong;
  target.name = std::move(name);
  return Reading::whole;
}

void putAddress(std::vector<std::uint8_t>& out, const IpAddress& address, std::uint16_t port) {
  out.push_back(address.v6 ? kTypeV6 : kTypeV4);
  auto bytes = address.span();
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.push_back(static_cast<std::uint8_t>(port >> 8));
  out.push_back(static_cast<std::uint8_t>(port));
}

bool startsWithWord(std::string_view line, std::string_view word) {
  return line.size() >= word.size() && std::equal(word.begin(), word.end(), line.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
         });
}

/// What is between a proxy's client and the proxy alone.
bool isHopHeader(std::string_view line) {
  return startsWithWord(line, "connection:") || startsWithWord(line, "proxy-") || startsWithWord(line, "keep-alive:");
}

}  // namespace

Reading readSocksGreeting(std::span<const std::uint8_t> bytes, std::size_t& length, SocksGreeting& greeting) {
  if (bytes.empty()) return Reading::incomplete;
  if (bytes[0] != socks::kVersion) return Reading::wrong;
  if (bytes.size() < 2 || bytes.size() < 2u + bytes[1]) return Reading::incomplete;
  auto methods = bytes.subspan(2, bytes[1]);
  greeting.anonymous = std::find(methods.begin(), methods.end(), 0) != methods.end();
  length = 2u + bytes[1];
  return Reading::whole;
}

Reading readSocksRequest(std::span<const std::uint8_t> bytes, std::size_t& length, SocksRequest& request) {
  if (!bytes.empty() && bytes[0] != socks::kVersion) return Reading::wrong;
  if (bytes.size() < 4) return Reading::incomplete;
  request = {.command = bytes[1]};
  Reading read = readTarget(bytes.subspan(3), length, request.target);
  length += 3;
  if (read != Reading::wrong) return read;
  request.knownAddress = false;
  length = bytes.size();
  return Reading::whole;
}

std::vector<std::uint8_t> socksReply(std::uint8_t code, const IpAddress& bound, std::uint16_t port) {
  std::vector<std::uint8_t> out = {socks::kVersion, code, 0};
  putAddress(out, bound, port);
  return out;
}

std::optional<SocksDatagram> readSocksDatagram(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 0) return std::nullopt;
  SocksDatagram out;
  std::size_t length = 0;
  if (readTarget(bytes.subspan(3), length, out.target) != Reading::whole) return std::nullopt;
  out.data = bytes.subspan(3 + length);
  return out;
}

std::vector<std::uint8_t> socksDatagram(const IpAddress& from, std::uint16_t port, std::span<const std::uint8_t> data) {
  std::vector<std::uint8_t> out = {0, 0, 0};
  putAddress(out, from, port);
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

std::optional<ProxyTarget> proxyTargetFrom(std::string_view text, std::uint16_t port) {
  ProxyTarget target{.name = {}, .address = {}, .port = port};
  std::string_view host = text;
  std::size_t colon = text.rfind(':');
  bool bracketed = text.starts_with("[");
  std::size_t close = bracketed ? text.find(']') : 0;
  if (bracketed && close == std::string_view::npos) return std::nullopt;
  if (colon != std::string_view::npos && (!bracketed || colon > close)) {
    auto number = parseNumber(text.substr(colon + 1), 65535);
    if (!number) return std::nullopt;
    target.port = static_cast<std::uint16_t>(*number);
    host = text.substr(0, colon);
  }
  if (bracketed) {
    if (!host.ends_with("]") || host.size() != close + 1) return std::nullopt;
    host = host.substr(1, host.size() - 2);
  }
  if (target.port == 0) return std::nullopt;
  target.address = ipFrom(host);
  if (target.address) return target;
  if (bracketed || !isHostName(host)) return std::nullopt;
  target.name = std::string(host);
  return target;
}

Reading readHttpProxyRequest(std::span<const std::uint8_t> bytes, std::size_t& length, HttpProxyRequest& request) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::size_t end = text.find("\r\n\r\n");
  if (end == std::string_view::npos) return bytes.size() > kLongestHeader ? Reading::wrong : Reading::incomplete;
  length = end + 4;
  std::string_view header = text.substr(0, end);
  std::string_view line = header.substr(0, header.find("\r\n"));
  std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || last == first || !line.substr(last + 1).starts_with("HTTP/1."))
    return Reading::wrong;
  std::string_view method = line.substr(0, first), where = line.substr(first + 1, last - first - 1);
  request = {};
  request.connect = method == "CONNECT";
  if (request.connect) {
    auto target = proxyTargetFrom(where, 0);
    if (!target) return Reading::wrong;
    request.target = std::move(*target);
    return Reading::whole;
  }
  if (!startsWithWord(where, "http://")) return Reading::wrong;
  where.remove_prefix(7);
  std::size_t slash = where.find_first_of("/?");
  std::string_view host = where.substr(0, slash);
  auto target = proxyTargetFrom(host, 80);
  if (!target) return Reading::wrong;
  request.target = std::move(*target);
  std::string_view path = slash == std::string_view::npos ? "/" : where.substr(slash);
  request.forward.append(method).append(" ").append(path.starts_with("/") ? "" : "/").append(path);
  request.forward.append(line.substr(last)).append("\r\n");
  for (std::size_t at = line.size(); at < header.size();) {
    std::size_t from = at + 2, next = std::min(header.find("\r\n", from), header.size());
    std::string_view field = header.substr(from, next - from);
    if (!isHopHeader(field)) request.forward.append(field).append("\r\n");
    at = next;
  }
  // One request a connection: the next one may be for another server.
  request.forward.append("Connection: close\r\n\r\n");
  return Reading::whole;
}

}  // namespace lodge::network
