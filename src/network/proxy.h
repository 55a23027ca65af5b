// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "net/address.h"
#include "network/inside.h"
#include "network/resolver.h"

namespace lodge::network {

/// A SOCKS5 (RFC 1928: CONNECT and UDP ASSOCIATE, without authentication) and HTTP proxy (CONNECT, and plain requests)
/// whose connections start inside a network, where names are looked up too. I/O thread.
class Proxy {
 public:
  enum class Kind : std::uint8_t { socks, http };
  struct Context {
    EventLoop& loop;
    Inside& inside;
    Resolver& resolver;
  };

  explicit Proxy(Context context);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  /// Returns the port: another than asked for if that was 0. Errors: busy, permissionDenied, io.
  Result<std::uint16_t> listen(Kind kind, const IpAddress& address, std::uint16_t port);
  std::size_t connections() const { return connections_.size(); }

 private:
  class Connection;
  class Datagrams;
  void accept(int listener, Kind kind);

  Context context_;
  std::vector<UniqueFd> listeners_;
  std::map<std::uint64_t, std::unique_ptr<Connection>> connections_;
  std::uint64_t next_ = 1;
};

}  // namespace lodge::network
