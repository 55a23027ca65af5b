// SPDX-License-Identifier: Apache-2.0
#include "network/sni.h"

#include <algorithm>

#include "base/bytes.h"

namespace lodge::network {

namespace {

using Bytes = std::span<const std::uint8_t>;

/// Takes fields from the front; once one is not whole, all that follow are empty.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : bytes_(bytes) {}
  bool good() const { return good_; }
  std::size_t left() const { return bytes_.size(); }
  std::uint32_t number(unsigned size) {
    Bytes b = take(size);
    std::uint32_t value = 0;
    for (std::uint8_t byte : b) value = value << 8 | byte;
    return value;
  }
  Bytes take(std::size_t size) {
    if (size > bytes_.size()) {
      good_ = false;
      size = bytes_.size();
    }
    Bytes front = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return front;
  }

 private:
  Bytes bytes_;
  bool good_ = true;
};

std::string serverName(Bytes extension) {
  Cursor c(extension);
  Cursor list(c.take(c.number(2)));
  while (list.left() > 3) {
    bool host = list.number(1) == 0;
    Bytes name = list.take(list.number(2));
    if (!host || !list.good() || name.empty() || name.size() > 253) continue;
    std::string out(name.begin(), name.end());
    std::transform(out.begin(), out.end(), out.begin(),
                   [](char ch) { return ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch + 32) : ch; });
    if (out.back() == '.') out.pop_back();
    return out;
  }
  return {};
}

/// The handshake's bytes out of the records that hold them.
std::string handshakeOf(Bytes stream) {
  std::string out;
  Cursor records(stream);
  while (records.left() >= 5) {
    if (records.number(1) != 22) break;
    records.take(2);
    Bytes body = records.take(records.number(2));
    out.append(body.begin(), body.end());
  }
  return out;
}

}  // namespace

std::optional<TlsHello> parseTlsHello(Bytes stream) {
  if (stream.size() < 6 || stream[0] != 22 || stream[1] != 3 || stream[5] != 1) return std::nullopt;
  std::string handshake = handshakeOf(stream);
  Cursor c(Bytes(reinterpret_cast<const std::uint8_t*>(handshake.data()), handshake.size()));
  c.number(1);
  std::size_t length = c.number(3);
  TlsHello hello;
  hello.whole = c.left() >= length;
  c.take(2 + 32);
  c.take(c.number(1));  // session
  c.take(c.number(2));  // cipher suites
  c.take(c.number(1));  // compression
  Cursor extensions(c.take(c.number(2)));
  while (extensions.left() >= 4) {
    std::uint32_t type = extensions.number(2);
    Bytes body = extensions.take(extensions.number(2));
    if (type == 0 && extensions.good()) hello.name = serverName(body);
  }
  return hello;
}

}  // namespace lodge::network
