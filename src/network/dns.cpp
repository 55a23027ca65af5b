// SPDX-License-Identifier: Apache-2.0
#include "network/dns.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/text.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

using Bytes = std::span<const std::uint8_t>;
constexpr std::size_t kHeader = 12;
constexpr unsigned kMostRecords = 128;

/// Reads a name, compressed or not (RFC 1035, 4.1.4); `at` moves behind it. Pointers may only go backwards.
std::optional<std::string> readName(Bytes m, std::size_t& at) {
  std::string name;
  std::size_t p = at, limit = m.size();
  bool jumped = false;
  for (;;) {
    if (p >= m.size()) return std::nullopt;
    std::uint8_t length = m[p];
    if (length >= 0xc0) {
      if (p + 2 > m.size()) return std::nullopt;
      std::size_t target = (std::size_t{length} & 0x3f) << 8 | m[p + 1];
      if (!jumped) at = p + 2;
      jumped = true;
      if (target >= limit || target >= p) return std::nullopt;
      limit = target;
      p = target;
      continue;
    }
    if (length > 63) return std::nullopt;
    ++p;
    if (length == 0) break;
    if (p + length > m.size() || name.size() + length > 254) return std::nullopt;
    if (!name.empty()) name += '.';
    for (std::size_t i = 0; i < length; ++i) {
      auto c = static_cast<char>(m[p + i]);
      name += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    p += length;
  }
  if (!jumped) at = p;
  return name;
}

void putName(std::vector<std::uint8_t>& out, const std::string& name) {
  if (!name.empty()) {
    for (std::string_view label : split(name, '.')) {
      std::size_t length = std::min<std::size_t>(label.size(), 63);
      out.push_back(static_cast<std::uint8_t>(length));
      out.insert(out.end(), label.begin(), label.begin() + static_cast<std::ptrdiff_t>(length));
    }
  }
  out.push_back(0);
}

template <class T>
void put(std::vector<std::uint8_t>& out, T value) {
  std::size_t at = out.size();
  out.resize(at + sizeof value);
  storeBe(&out[at], value);
}

/// EDNS: the size of answers in an OPT record of the additional section.
std::size_t ednsSize(Bytes m, std::size_t at) {
  if (loadBe<std::uint16_t>(&m[6]) != 0 || loadBe<std::uint16_t>(&m[8]) != 0) return 512;
  unsigned count = loadBe<std::uint16_t>(&m[10]);
  for (unsigned n = 0; n < std::min(count, 4u); ++n) {
    auto name = readName(m, at);
    if (!name || at + 10 > m.size()) return 512;
    if (loadBe<std::uint16_t>(&m[at]) == 41) return std::max<std::size_t>(512, loadBe<std::uint16_t>(&m[at + 2]));
    at += 10 + std::size_t{loadBe<std::uint16_t>(&m[at + 8])};
  }
  return 512;
}

}  // namespace

std::optional<DnsQuestion> parseDnsQuestion(Bytes m) {
  if (m.size() < kHeader || loadBe<std::uint16_t>(&m[4]) != 1) return std::nullopt;
  DnsQuestion q;
  q.id = loadBe<std::uint16_t>(m.data());
  q.response = (m[2] & 0x80) != 0;
  q.opcode = m[2] >> 3 & 15;
  q.truncated = (m[2] & 2) != 0;
  q.recursionDesired = (m[2] & 1) != 0;
  q.code = m[3] & 15;
  std::size_t at = kHeader;
  auto name = readName(m, at);
  if (!name || at + 4 > m.size()) return std::nullopt;
  q.name = std::move(*name);
  q.type = loadBe<std::uint16_t>(&m[at]);
  q.dnsClass = loadBe<std::uint16_t>(&m[at + 2]);
  q.end = at + 4;
  if (!q.response) q.largest = ednsSize(m, q.end);
  return q;
}

std::vector<DnsRecord> parseDnsAnswers(Bytes m, const DnsQuestion& question) {
  std::vector<DnsRecord> all;
  unsigned count = std::min<unsigned>(loadBe<std::uint16_t>(&m[6]), kMostRecords);
  std::size_t at = question.end;
  for (unsigned n = 0; n < count; ++n) {
    auto name = readName(m, at);
    if (!name || at + 10 > m.size()) break;
    DnsRecord r{.name = std::move(*name),
                .type = loadBe<std::uint16_t>(&m[at]),
                .ttl = loadBe<std::uint32_t>(&m[at + 4]),
                .address = {},
                .target = {}};
    std::size_t length = loadBe<std::uint16_t>(&m[at + 8]);
    at += 10;
    if (at + length > m.size()) break;
    bool wanted = true;
    if ((r.type == dns::kA && length == 4) || (r.type == dns::kAaaa && length == 16)) {
      r.address = IpAddress::from(m.subspan(at, length));
    } else if (r.type == dns::kCname || r.type == dns::kPtr) {
      std::size_t inside = at;
      auto target = readName(m.first(at + length), inside);
      if (!target) break;
      r.target = std::move(*target);
    } else {
      wanted = false;
    }
    if (wanted) all.push_back(std::move(r));
    at += length;
  }
  return all;
}

std::vector<std::uint8_t> makeDnsAnswer(Bytes query, const DnsQuestion& question, std::uint8_t code,
                                        std::span<const DnsRecord> records) {
  std::vector<std::uint8_t> out(query.begin(), query.begin() + static_cast<std::ptrdiff_t>(question.end));
  out[2] = static_cast<std::uint8_t>(0x84 | (query[2] & 0x79));  // an authority's response
  out[3] = static_cast<std::uint8_t>(0x80 | code);               // recursion available
  storeBe<std::uint16_t>(&out[6], static_cast<std::uint16_t>(records.size()));
  storeBe<std::uint32_t>(&out[8], 0);
  for (const DnsRecord& r : records) {
    put<std::uint16_t>(out, 0xc000 | kHeader);  // the question's name
    put(out, r.type);
    put<std::uint16_t>(out, 1);
    put(out, r.ttl);
    std::vector<std::uint8_t> data;
    if (r.type == dns::kA || r.type == dns::kAaaa) {
      auto bytes = r.address.span();
      data.assign(bytes.begin(), bytes.end());
    } else {
      putName(data, r.target);
    }
    put(out, static_cast<std::uint16_t>(data.size()));
    out.insert(out.end(), data.begin(), data.end());
  }
  return out;
}

std::vector<std::uint8_t> makeDnsTruncated(Bytes answer, const DnsQuestion& question) {
  std::vector<std::uint8_t> out(answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(question.end));
  out[2] |= 2;
  storeBe<std::uint16_t>(&out[6], 0);
  storeBe<std::uint32_t>(&out[8], 0);
  return out;
}

std::optional<IpAddress> addressOfReverse(std::string_view name) {
  constexpr std::string_view kV4 = ".in-addr.arpa", kV6 = ".ip6.arpa";
  if (name.ends_with(kV4)) {
    auto parts = split(name.substr(0, name.size() - kV4.size()), '.');
    if (parts.size() != 4) return std::nullopt;
    std::string text(parts[3]);
    for (std::size_t i = 3; i-- > 0;) text += "." + std::string(parts[i]);
    return ipFrom(text);
  }
  if (!name.ends_with(kV6) || name.size() != 63 + kV6.size()) return std::nullopt;
  std::string text;
  for (std::size_t i = 0; i < 32; ++i) {
    text += name[62 - 2 * i];
    if (i % 4 == 3 && i != 31) text += ':';
  }
  return ipFrom(text);
}

}  // namespace lodge::network
