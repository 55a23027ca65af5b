// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "net/address.h"

namespace lodge::network {

/// An address and a port as the host's sockets have them.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;

  SocketAddress() = default;
  SocketAddress(const IpAddress& address, std::uint16_t port) {
    if (address.v6) {
      sockaddr_in6 a{};
      a.sin6_family = AF_INET6;
      a.sin6_port = htons(port);
      std::memcpy(&a.sin6_addr, address.bytes.data(), 16);
      std::memcpy(&storage, &a, length = sizeof a);
    } else {
      sockaddr_in a{};
      a.sin_family = AF_INET;
      a.sin_port = htons(port);
      a.sin_addr.s_addr = htonl(address.v4());
      std::memcpy(&storage, &a, length = sizeof a);
    }
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }

  IpAddress address() const {
    if (storage.ss_family == AF_INET6) {
      sockaddr_in6 a;
      std::memcpy(&a, &storage, sizeof a);
      IpAddress out{.v6 = true, .bytes = {}};
      std::memcpy(out.bytes.data(), &a.sin6_addr, 16);
      return out;
    }
    sockaddr_in a;
    std::memcpy(&a, &storage, sizeof a);
    return IpAddress::v4From(ntohl(a.sin_addr.s_addr));
  }
  std::uint16_t port() const {
    sockaddr_in a;  // at the same place in both families
    std::memcpy(&a, &storage, sizeof a);
    return ntohs(a.sin_port);
  }
};

}  // namespace lodge::network
