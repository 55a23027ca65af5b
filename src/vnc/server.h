// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/file.h"
#include "display/screen.h"
#include "vnc/session.h"

namespace lodge::vnc {

/// Where a server listens.
struct Address {
  std::string host = "127.0.0.1";  ///< an IPv4 address
  std::uint16_t port = 5900;
  std::string socket{};              ///< path of a Unix socket, instead of host and port
  std::string password{};            ///< empty: none
  bool tls = false;                  ///< with a certificate, or without
  std::string certificate{}, key{};  ///< paths of PEM files
};

/// ":1" (port 5901 of the loopback address), "0.0.0.0:1", "unix:/run/screen", each with ",password-file=FILE",
/// and ",tls" (anonymous) or ",tls-cert=FILE,tls-key=FILE". Errors: invalidArgument, and the file's.
Result<Address> parseAddress(std::string_view text);

/// Shows a display to VNC clients. The screen is looked at while a client waits for an update, and no more than
/// kFramesPerSecond times a second. I/O thread.
class Server {
 public:
  static constexpr unsigned kFramesPerSecond = 30;
  static constexpr std::size_t kMaxClients = 16;

  /// Errors: busy (the port is in use), permissionDenied, io.
  static Result<std::unique_ptr<Server>> create(EventLoop& loop, Display& display, std::string name, Address address);
  ~Server();

 private:
  struct Client {
    UniqueFd fd;
    std::unique_ptr<Session> session;
    bool closing = false;
  };
  Server(EventLoop& loop, Display& display, std::string name, Address address, std::shared_ptr<TlsContext> tls,
         UniqueFd listener);
  Status start();
  void accept();
  void ready(Client& client, std::uint32_t events);
  void send(Client& client);
  void remove(Client& client);
  void frameSoon();
  void frame();

  EventLoop& loop_;
  Display& display_;
  std::string name_;
  Address address_;
  std::shared_ptr<TlsContext> tls_;
  UniqueFd listener_;
  std::list<Client> clients_;
  std::uint64_t generation_ = 1;
  bool armed_ = false;
  std::unique_ptr<Timer> timer_;
};

}  // namespace lodge::vnc
