// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/address.h"

namespace lodge::network {

inline constexpr std::uint16_t kDnsPort = 53;

namespace dns {
inline constexpr std::uint16_t kA = 1, kCname = 5, kPtr = 12, kAaaa = 28, kAny = 255;
inline constexpr std::uint8_t kNoError = 0, kFormatError = 1, kServerFailure = 2, kNoName = 3, kRefused = 5;
}  // namespace dns

/// A DNS message's header and question (RFC 1035, 4.1). Names are in lower case, without the last dot.
struct DnsQuestion {
  std::uint16_t id = 0;
  bool response = false, truncated = false, recursionDesired = false;
  std::uint8_t opcode = 0, code = 0;
  std::string name;
  std::uint16_t type = 0, dnsClass = 0;
  std::size_t end = 0;        ///< offset after the question
  std::size_t largest = 512;  ///< of an answer by UDP, as EDNS says (RFC 6891)
};

struct DnsRecord {
  std::string name;
  std::uint16_t type = 0;
  std::uint32_t ttl = 0;  ///< seconds
  IpAddress address;      ///< of A and AAAA
  std::string target;     ///< of CNAME and PTR
};

/// Nothing if the header or the one question is not whole, or there are several.
std::optional<DnsQuestion> parseDnsQuestion(std::span<const std::uint8_t> message);
/// The A, AAAA, CNAME and PTR records of the answer section; what follows a broken record is left out.
std::vector<DnsRecord> parseDnsAnswers(std::span<const std::uint8_t> message, const DnsQuestion& question);

/// A whole answer to `query`, whose question is `question`.
std::vector<std::uint8_t> makeDnsAnswer(std::span<const std::uint8_t> query, const DnsQuestion& question,
                                        std::uint8_t code, std::span<const DnsRecord> records);
/// The query cut to its question, with "truncated" set: the client asks again by TCP.
std::vector<std::uint8_t> makeDnsTruncated(std::span<const std::uint8_t> answer, const DnsQuestion& question);

/// The address that a name under in-addr.arpa or ip6.arpa stands for.
std::optional<IpAddress> addressOfReverse(std::string_view name);

}  // namespace lodge::network
