// SPDX-License-Identifier: Apache-2.0
#include "net/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/text.h"

namespace lodge {

std::string toText(const MacAddress& mac) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

std::optional<MacAddress> macFrom(std::string_view text) {
  auto parts = split(text, ':');
  MacAddress mac{};
  if (parts.size() != mac.size()) return std::nullopt;
  for (std::size_t i = 0; i < mac.size(); ++i) {
    auto byte = parts[i].size() == 2 ? parseNumber("0x" + std::string(parts[i]), 255) : std::nullopt;
    if (!byte) return std::nullopt;
    mac[i] = static_cast<std::uint8_t>(*byte);
  }
  return mac;
}

IpAddress IpAddress::v4From(std::uint32_t hostOrder) {
  IpAddress a;
  for (unsigned i = 0; i < 4; ++i) a.bytes[i] = static_cast<std::uint8_t>(hostOrder >> (24 - 8 * i));
  return a;
}

IpAddress IpAddress::from(std::span<const std::uint8_t> bytes) {
  IpAddress a;
  a.v6 = bytes.size() == 16;
  std::copy_n(bytes.begin(), std::min<std::size_t>(bytes.size(), 16), a.bytes.begin());
  return a;
}

std::uint32_t IpAddress::v4() const {
  return loadBe<std::uint32_t>(bytes.data());
}

std::optional<IpAddress> ipFrom(std::string_view text) {
  std::string copy(text);
  IpAddress a;
  if (::inet_pton(AF_INET, copy.c_str(), a.bytes.data()) == 1) return a;
  a.v6 = true;
  if (::inet_pton(AF_INET6, copy.c_str(), a.bytes.data()) == 1) return a;
  return std::nullopt;
}

std::string toText(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN];
  return ::inet_ntop(address.v6 ? AF_INET6 : AF_INET, address.bytes.data(), text, sizeof text);
}

IpAddress IpBlock::mask() const {
  IpAddress m{base.v6, {}};
  for (unsigned bit = 0; bit < prefix; ++bit) m.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
  return m;
}

bool IpBlock::contains(const IpAddress& address) const {
  if (address.v6 != base.v6) return false;
  IpAddress m = mask();
  for (std::size_t i = 0; i < 16; ++i) {
    if (((address.bytes[i] ^ base.bytes[i]) & m.bytes[i]) != 0) return false;
  }
  return true;
}

IpAddress IpBlock::at(std::uint32_t number) const {
  if (!base.v6) return IpAddress::v4From(base.v4() + number);
  IpAddress a = base;
  for (std::size_t i = 16; i-- > 0 && number != 0; number >>= 8) {
    number += a.bytes[i];
    a.bytes[i] = static_cast<std::uint8_t>(number);
  }
  return a;
}

IpAddress IpBlock::last() const {
  IpAddress a = base, m = mask();
  for (std::size_t i = 0; i < (base.v6 ? 16u : 4u); ++i) a.bytes[i] |= static_cast<std::uint8_t>(~m.bytes[i]);
  return a;
}

Result<IpBlock> blockFrom(std::string_view text) {
  auto bad = [&](const std::string& why) {
    return Error(ErrorKind::invalidArgument, inQuotes(text) + " is no block of addresses: " + why)
        .withHint("write ADDRESS/LENGTH, as 192.168.50.0/24 or fd12:3456::/64");
  };
  std::size_t slash = text.find('/');
  auto address = ipFrom(text.substr(0, slash));
  if (!address) return bad(inQuotes(text.substr(0, slash)) + " is no IP address");
  unsigned bits = address->v6 ? 128 : 32;
  IpBlock block{*address, bits};
  if (slash != std::string_view::npos) {
    auto length = parseNumber(text.substr(slash + 1), bits);
    if (!length) return bad(fmt::format("the length must be 0 to {}", bits));
    block.prefix = static_cast<unsigned>(*length);
  }
  IpAddress m = block.mask(), clean = *address;
  for (std::size_t i = 0; i < 16; ++i) clean.bytes[i] &= m.bytes[i];
  if (clean != *address) {
    return bad(fmt::format("host bits are set; {} was meant?", toText(IpBlock{clean, block.prefix})));
  }
  return block;
}

std::string toText(const IpBlock& block) {
  return fmt::format("{}/{}", toText(block.base), block.prefix);
}

}  // namespace lodge
