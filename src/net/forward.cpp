// SPDX-License-Identifier: Apache-2.0
#include "net/forward.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "base/text.h"

namespace lodge {

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

std::optional<std::uint16_t> port(const std::string& text) {
  auto value = text.starts_with("0x") ? std::nullopt : parseNumber(text, 65535);
  if (!value || *value == 0) return std::nullopt;
  return static_cast<std::uint16_t>(*value);
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
    if (!address.empty() && !ipFrom(address)) return badForward(text, inQuotes(address) + " is not an IP address");
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

}  // namespace lodge
