// SPDX-License-Identifier: Apache-2.0
#include "cli/net_option.h"

#include <arpa/inet.h>

#include <filesystem>

#include "base/text.h"
#include "net/tap_net.h"
#include "network/store.h"

namespace lodge::cli {

namespace {

/// queues=N, which every kind of card has.
Status takeQueues(NetConfig& net, std::string_view field) {
  auto number = parseNumber(field.substr(field.find('=') + 1), kMostNetQueues);
  if (!number || *number == 0)
    return Error(ErrorKind::invalidArgument, std::string(field) + ": a card has 1 to 8 pairs of queues")
        .withHint("write queues=2, or leave it out: one a CPU, 4 at most");
  net.queues = static_cast<unsigned>(*number);
  return {};
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
  } else if (field.starts_with("queues=")) {
    return takeQueues(net, field);
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
        .withHint("there are forward=, mac=, queues=, hostname=, ipv6=on|off, tftp=, bootfile= and restricted");
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
    } else if (field.starts_with("queues=")) {
      if (Status s = takeQueues(net, field); !s) return std::move(s).error().context("--net tap");
    } else if (field.starts_with("vhost=") && vhostUseFrom(std::string_view(field).substr(6))) {
      net.port = network::Json{{"vhost", field.substr(6)}}.dump();
    } else {
      return Error(ErrorKind::invalidArgument, "--net tap: unknown setting " + inQuotes(field))
          .withHint("there are ifname=, mac=, queues= and vhost=on|off|auto");
    }
  }
  if (!net.tap.empty()) return std::optional<NetConfig>(std::move(net));
  return Error(ErrorKind::invalidArgument, "--net tap names no device").withHint("write --net tap,ifname=tap0");
}

Result<std::optional<NetConfig>> parseNetwork(std::string_view text, const std::vector<std::string>& fields) {
  auto store = network::Store::open();
  if (!network::isNetworkName(fields[0]) || !store || !store->has(fields[0])) {
    return Error(ErrorKind::invalidArgument, "--net " + inQuotes(text) + ": unknown kind " + inQuotes(fields[0]))
        .withHint("there are user (NAT), tap (ifname=NAME), none and the networks that 'lodge network list' shows");
  }
  NetConfig net;
  net.network = fields[0];
  std::vector<std::string> port;
  network::Json device = network::Json::object();  // what concerns the machine's side
  for (const std::string& field : std::span(fields).subspan(1)) {
    std::size_t equals = field.find('=');
    std::string key = field.substr(0, equals), value = equals == std::string::npos ? "" : field.substr(equals + 1);
    if ((key == "direct" || key == "vhost") && vhostUseFrom(value)) {
      device[key] = value;
    } else if (key != "queues") {
      port.push_back(field);
    } else if (Status s = takeQueues(net, field); !s) {
      return std::move(s).error().context("--net " + fields[0]);
    }
  }
  auto settings = parsePortSettings(port);
  if (!settings) return std::move(settings).error().context("--net " + fields[0]);
  if (auto mac = settings->find("mac"); mac != settings->end()) {
    net.mac = macFrom(mac->get<std::string>());
    settings->erase("mac");
  }
  settings->update(device);
  net.port = settings->dump();
  return std::optional<NetConfig>(std::move(net));
}

}  // namespace

Result<network::Json> parsePortSettings(std::span<const std::string> fields) {
  network::Json json = network::Json::object();
  network::CableSettings cable;
  bool hasCable = false;
  for (const std::string& field : fields) {
    std::size_t equals = field.find('=');
    std::string key = field.substr(0, equals), value = equals == std::string::npos ? "" : field.substr(equals + 1);
    auto take = [&](auto result, auto& out) -> Status {
      if (!result) return std::move(result).error();
      out = *result;
      hasCable = true;
      return {};
    };
    Status status;
    if (key == "mac") {
      auto mac = parseMac(value);
      if (!mac) return std::move(mac).error();
      json["mac"] = toText(*mac);
    } else if (key == "ip") {
      auto address = ipFrom(value);
      if (!address) status = Error(ErrorKind::invalidArgument, "ip=" + inQuotes(value) + " is no IP address");
      if (value == "any") {
        status = {};
        json["addresses"] = network::Json::array();
      } else {
        json["addresses"].push_back(value);
      }
    } else if (key == "rate") {
      status =
          value == "none" ? take(Result<std::uint64_t>(0), cable.rate) : take(network::rateFrom(value), cable.rate);
    } else if (key == "delay") {
      status = take(network::delayFrom(value), cable.delay);
    } else if (key == "loss") {
      status = take(network::lossFrom(value), cable.lossParts);
    } else if (key == "vlan" || key == "trunk") {
      network::Json list = network::Json::array();
      for (std::string_view part : split(value, '+')) {
        auto vlan = parseNumber(part, 4094);
        if (!vlan || *vlan == 0)
          return Error(ErrorKind::invalidArgument, field + ": VLANs are numbers from 1 to 4094")
              .withHint("write vlan=10 for an access port, trunk=10+20 for tagged frames");
        list.push_back(*vlan);
      }
      if (key == "trunk")
        json["trunk"] = list;
      else
        json["vlan"] = list[0];
    } else if (key == "mirror") {
      json["mirrorOf"] = value;
    } else if (key == "link" && (value == "up" || value == "down")) {
      json["up"] = value == "up";
    } else if (key == "spoof" && (value == "on" || value == "off")) {
      json["antiSpoof"] = value == "off";
    } else {
      status = Error(ErrorKind::invalidArgument, "unknown setting " + inQuotes(field))
                   .withHint(
                       "there are mac=, ip=, rate=100M, delay=20ms, loss=1%, vlan=, trunk=10+20, mirror=PORT, "
                       "link=up|down and spoof=on|off; of a machine also direct= and vhost=on|off|auto");
    }
    if (!status) return std::move(status).error();
  }
  if (hasCable) json["cable"] = network::toJson(cable);
  return json;
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
  if (fields[0] != "user") return parseNetwork(text, fields);
  NetConfig net;
  for (std::size_t i = 1; i < fields.size(); ++i) {
    if (Status set = setting(net, fields[i]); !set) return std::move(set).error().context("--net");
  }
  return std::optional<NetConfig>(std::move(net));
}

}  // namespace lodge::cli
