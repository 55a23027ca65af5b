// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "network/proxy.h"
#include "network/proxy_messages.h"

namespace lodge::network {

/// The datagrams of a client that asked for UDP ASSOCIATE (RFC 1928, 6 and 7), for as long as the object lives.
class Proxy::Datagrams {
 public:
  /// `client`: the stream connection, whose addresses say where datagrams may come from and come to. Errors: io.
  static Result<std::unique_ptr<Datagrams>> open(Context context, int client);
  ~Datagrams();
  Datagrams(const Datagrams&) = delete;
  Datagrams& operator=(const Datagrams&) = delete;

  const IpAddress& address() const { return own_; }
  std::uint16_t port() const { return port_; }

 private:
  Datagrams(Context context, UniqueFd outside, IpAddress own, std::uint16_t port, IpAddress client)
      : context_(context), outside_(std::move(outside)), own_(own), port_(port), client_(client) {}
  void fromClient();
  void fromInside(bool v6);
  void send(const IpAddress& to, std::uint16_t port, std::span<const std::uint8_t> data);

  Context context_;
  UniqueFd outside_;
  IpAddress own_;
  std::uint16_t port_;
  IpAddress client_;
  std::uint16_t clientPort_ = 0;  ///< that of its first datagram
  UniqueFd inside_[2];            ///< for IPv4 and IPv6
  std::size_t lookUps_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// One client's connection, from its first byte to the last.
class Proxy::Connection {
 public:
  Connection(Context context, Kind kind, UniqueFd client, std::function<void()> ended);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

 private:
  enum class State : std::uint8_t { greeting, request, working, relaying, answering, associated, over };
  /// One direction: what was read and is not written yet.
  struct Pipe {
    std::vector<std::uint8_t> data;
    std::size_t at = 0;
    bool ended = false, shut = false;
    bool empty() const { return at == data.size(); }
  };
  void watch();
  void clientEvents(std::uint32_t events);
  void serverEvents(std::uint32_t events);
  bool read(int fd, Pipe& pipe);
  bool write(int fd, Pipe& pipe);
  void relay();
  void handle();
  Reading handleSocks();
  Reading handleHttp();
  void associate();
  void go(const ProxyTarget& target);
  void connectNext();
  void connected();
  void failed(int error);
  void refuse(std::uint8_t socksCode, const std::string& why);
  void answer(const std::vector<std::uint8_t>& bytes);
  void end();

  Context context_;
  Kind kind_;
  UniqueFd client_, server_;
  std::function<void()> ended_;
  State state_;
  std::uint32_t clientWatched_ = 0, serverWatched_ = 0;
  Pipe up_, down_;  ///< to the server, to the client
  std::vector<IpAddress> addresses_;
  std::size_t nextAddress_ = 0;
  ProxyTarget target_;
  bool tunnel_ = true;  ///< false: a plain HTTP request, which gets no word from the proxy
  std::unique_ptr<Datagrams> datagrams_;
  std::unique_ptr<Timer> patience_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lodge::network
