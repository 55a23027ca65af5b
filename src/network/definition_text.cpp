// SPDX-License-Identifier: Apache-2.0
// The values of a network's settings as text.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "base/text.h"
#include "network/definition.h"

namespace lodge::network {

namespace {

/// A decimal number and what follows it.
std::optional<std::pair<double, std::string_view>> numberAndUnit(std::string_view text) {
  std::size_t digits = text.find_first_not_of("0123456789.");
  std::string number(text.substr(0, digits));
  if (number.empty() || number.front() == '.' || number.size() > 15) return std::nullopt;
  char* end = nullptr;
  double value = std::strtod(number.c_str(), &end);
  if (*end != '\0' || !std::isfinite(value)) return std::nullopt;
  return std::pair(value, digits == std::string_view::npos ? std::string_view() : text.substr(digits));
}

}  // namespace

std::string_view toString(NetworkKind kind) {
  constexpr std::string_view kNames[] = {"user", "nat", "internal", "isolated", "bridge", "wifi", "switch"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::optional<NetworkKind> kindFrom(std::string_view text) {
  for (auto kind : {NetworkKind::user, NetworkKind::nat, NetworkKind::internal, NetworkKind::isolated,
                    NetworkKind::bridge, NetworkKind::wifi, NetworkKind::switched}) {
    if (toString(kind) == text) return kind;
  }
  return std::nullopt;
}

bool needsPrivilege(NetworkKind kind) {
  return kind == NetworkKind::nat || kind == NetworkKind::internal || kind == NetworkKind::bridge ||
         kind == NetworkKind::wifi;
}

bool isNetworkName(std::string_view name) {
  auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > 32 || !plain(name[0])) return false;
  for (char c : name) {
    if (!plain(c) && c != '-' && c != '_') return false;
  }
  return name != "user" && name != "tap" && name != "none";
}

Result<std::uint64_t> rateFrom(std::string_view text) {
  auto parts = numberAndUnit(text);
  double factor = 0;
  if (parts && parts->second == "k") factor = 1e3;
  if (parts && parts->second == "M") factor = 1e6;
  if (parts && parts->second == "G") factor = 1e9;
  double value = parts ? parts->first * factor : 0;
  if (value < 8000 || value > 1e12) {
    return Error(ErrorKind::invalidArgument, "rate " + inQuotes(text) + " is not from 8k to 1000G")
        .withHint("write bits a second with k, M or G: 100M");
  }
  return static_cast<std::uint64_t>(value);
}

Result<Nanoseconds> delayFrom(std::string_view text) {
  auto parts = numberAndUnit(text);
  double factor = -1;
  if (parts && parts->second == "us") factor = 1e3;
  if (parts && parts->second == "ms") factor = 1e6;
  if (parts && parts->second == "s") factor = 1e9;
  double value = parts ? parts->first * factor : -1;
  if (value < 0 || value > 1e10) {
    return Error(ErrorKind::invalidArgument, "delay " + inQuotes(text) + " is not from 0us to 10s")
        .withHint("write a time with us, ms or s: 20ms");
  }
  return static_cast<Nanoseconds>(value);
}

Result<std::uint32_t> lossFrom(std::string_view text) {
  auto parts = numberAndUnit(text);
  if (!parts || parts->second != "%" || parts->first > 100) {
    return Error(ErrorKind::invalidArgument, "loss " + inQuotes(text) + " is not from 0% to 100%")
        .withHint("write a share of the frames: 0.5%");
  }
  return static_cast<std::uint32_t>(std::lround(parts->first * 1e4));
}

std::string rateText(std::uint64_t rate) {
  if (rate == 0) return "-";
  for (auto [unit, name] : {std::pair(1'000'000'000.0, "G"), std::pair(1e6, "M")}) {
    if (static_cast<double>(rate) >= unit) return fmt::format("{:.4g}{}", static_cast<double>(rate) / unit, name);
  }
  return fmt::format("{:.4g}k", static_cast<double>(rate) / 1e3);
}

Json toJson(const CableSettings& cable) {
  return {{"rate", cable.rate}, {"delayNanoseconds", cable.delay}, {"lossPartsPerMillion", cable.lossParts}};
}

std::optional<CableSettings> cableFrom(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  CableSettings cable;
  auto number = [&](const char* key, std::uint64_t max) -> std::optional<std::uint64_t> {
    auto it = json.find(key);
    if (it == json.end()) return 0;
    if (!it->is_number_unsigned() && !(it->is_number_integer() && it->get<std::int64_t>() >= 0)) return std::nullopt;
    auto value = it->get<std::uint64_t>();
    return value <= max ? std::optional(value) : std::nullopt;
  };
  auto rate = number("rate", 1'000'000'000'000);
  auto delay = number("delayNanoseconds", 10'000'000'000);
  auto loss = number("lossPartsPerMillion", 1'000'000);
  if (!rate || !delay || !loss) return std::nullopt;
  return CableSettings{*rate, static_cast<Nanoseconds>(*delay), static_cast<std::uint32_t>(*loss)};
}

std::string forwardText(const PortForward& f) {
  auto bracketed = [](const std::string& a) { return a.find(':') == std::string::npos ? a : "[" + a + "]"; };
  std::string guest = f.guestAddress.empty() ? "" : bracketed(f.guestAddress) + ":";
  return fmt::format("{}:{}:{}:{}{}", f.udp ? "udp" : "tcp", bracketed(f.hostAddress), f.hostPort, guest, f.guestPort);
}

}  // namespace lodge::network
