// SPDX-License-Identifier: Apache-2.0
#include "cli/net_option.h"

#include <arpa/inet.h>

#include <filesystem>

#include "base/text.h"

namespace lodge::cli {

namespace {

constexpr const char* kForwardForm =
    "write forward=tcp:127.0.0.1:2222:22 (protocol, host address and port, guest port)";

Error badForward(std::string_view text, std::string_view why) {
  return Error(ErrorKind::invalidArgument, fmt::format("forward {}: {}", inQuotes(text), why)).withHint(kForwardForm);
}

/// Parts between colons, with colons in brackets kept and the brackets dropped.
std::optional<std::vector<std::string>> addressFields(std::string_view text) {
  std::vector<std::string> fields(1);
  bool inside = false;
  for (char c : text) {
    if (c == '[' || c == ']') {
      if (inside == (c == '[')) return std::nullopt;
      inside = !inside;
    } else if (c == ':' && !inside) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  if (inside) return std::nullopt;
  return fields;
}

bool isAddress(const std::string& text) {
  in6_addr address;  // large enough for either family
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 || ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

std::optional<std::uint16_t> port(const std::string& text) {
  auto value = text.starts_with("0x") ? std::nullopt : parseNumber(text, 65535);
  if (!value || *value == 0) return std::nullopt;
  return static_cast<std::uint16_t>(*value);
}

Status setting(NetConfig& net, const std::string& field) {
  auto value = [&] { return std::string_view(field).substr(field.find('=') + 1); };
  if (field.starts_with("forward=")) {
    auto forward = parseForward(value());
    if (!forward) return std::move(forward).error();
    net.user.forwards.push_back(std::move(*forward));
  } else if (field.starts_with("mac=")) {
    auto mac = parseMac(value());
    if (!mac) return std::move(mac).error();
    net.mac = *mac;
  } else if (field.starts_with("hostname=")) {
    net.user.hostname = value();
  } else if (field.starts_with("tftp=")) {
    net.user.tftp = value();
    std::error_code ignored;
    if (!std::filesystem::is_directory(net.user.tftp, ignored)) {
      return Error(ErrorKind::notFound, "tftp=: there is no folder " + inQuotes(net.user.tftp))
          .withHint("name the folder whose files the guest may read by TFTP");
    }
  } else if (field.starts_with("bootfile=")) {
    net.user.bootFile = value();
    constexpr std::size_t kMostCharacters = 127;  // of a DHCP message
    if (net.user.bootFile.size() > kMostCharacters)
      return Error(ErrorKind::invalidArgument, fmt::format("bootfile= takes up to {} characters", kMostCharacters));
  } else if (field == "ipv6=on" || field == "ipv6=off") {
    net.user.ipv6 = value() == "on";
  } else if (field == "restricted") {
    net.user.restricted = true;
  } else {
    return Error(ErrorKind::invalidArgument, "unknown setting " + inQuotes(field))
        .withHint("there are forward=, mac=, hostname=, ipv6=on|off, tftp=, bootfile= and restricted");
  }
  return {};
}

Result<std::optional<NetConfig>> parseTap(const std::vector<std::string>& fields) {
  NetConfig net;
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const std::string& field = fields[i];
    if (field.starts_with("ifname=")) {
      net.tap = field.substr(7);
    } else if (field.starts_with("mac=")) {
      auto mac = parseMac(std::string_view(field).substr(4));
      if (!mac) return std::move(mac).error().context("--net tap");
      net.mac = *mac;
    } else {
      return Error(ErrorKind::invalidArgument, "--net tap: unknown setting " + inQuotes(field))
          .withHint("there are ifname= and mac=");
    }
  }
  if (!net.tap.empty()) return std::optional<NetConfig>(std::move(net));
  return Error(ErrorKind::invalidArgument, "--net tap names no device").withHint("write --net tap,ifname=tap0");
}

}  // namespace

Result<PortForward> parseForward(std::string_view text) {
  auto fields = addressFields(text);
  if (!fields) return badForward(text, "brackets do not match");
  if (fields->size() != 4 && fields->size() != 5) return badForward(text, "it has not four parts");
  PortForward forward;
  if ((*fields)[0] != "tcp" && (*fields)[0] != "udp") return badForward(text, "the protocol must be tcp or udp");
  forward.udp = (*fields)[0] == "udp";
  forward.hostAddress = (*fields)[1];
  if (fields->size() == 5) forward.guestAddress = (*fields)[3];
  for (const std::string& address : {forward.hostAddress, forward.guestAddress}) {
    if (!address.empty() && !isAddress(address)) return badForward(text, inQuotes(address) + " is not an IP address");
  }
  auto hostPort = port((*fields)[2]);
  auto guestPort = port(fields->back());
  if (!hostPort || !guestPort) {
    return badForward(text, inQuotes(!hostPort ? (*fields)[2] : fields->back()) + " is not a port from 1 to 65535");
  }
  forward.hostPort = *hostPort;
  forward.guestPort = *guestPort;
  return forward;
}

Result<MacAddress> parseMac(std::string_view text) {
  MacAddress mac{};
  auto parts = split(text, ':');
  bool good = parts.size() == mac.size();
  for (std::size_t i = 0; good && i < mac.size(); ++i) {
    auto byte = parts[i].size() == 2 ? parseNumber("0x" + std::string(parts[i]), 255) : std::nullopt;
    good = byte.has_value();
    if (good) mac[i] = static_cast<std::uint8_t>(*byte);
  }
  if (!good || (mac[0] & 1) != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("mac {} is not a card's address", inQuotes(text)))
        .withHint("write six bytes like 52:54:00:12:34:56, the first one even");
  }
  return mac;
}

Result<std::optional<NetConfig>> parseNet(std::string_view text) {
  std::vector<std::string> fields = splitFields(text, ',');
  if (text == "none") return std::optional<NetConfig>();
  if (fields[0] == "tap") return parseTap(fields);
  if (fields[0] != "user") {
    return Error(ErrorKind::invalidArgument, "--net " + inQuotes(text) + ": unknown kind " + inQuotes(fields[0]))
        .withHint("there are user (NAT), tap (ifname=NAME) and none");
  }
  NetConfig net;
  for (std::size_t i = 1; i < fields.size(); ++i) {
    if (Status set = setting(net, fields[i]); !set) return std::move(set).error().context("--net");
  }
  return std::optional<NetConfig>(std::move(net));
}

}  // namespace lodge::cli
