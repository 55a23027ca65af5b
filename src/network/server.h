// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "net/message_net.h"
#include "network/capture_stream.h"
#include "network/network.h"

namespace lodge::network {

/// The sockets of a running network, both its user's own: "ports" (SOCK_SEQPACKET: a JSON message with a port's
/// settings, answered by one; then frames behind virtio headers both ways, or with a tap device's descriptor attached
/// nothing more until the port leaves; a direct port's answer has its device's queues attached), and "control" (a line
/// of JSON, answered by one). I/O thread.
class Server {
 public:
  Server(EventLoop& loop, Network& network, std::string folder);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  Status start();

 private:
  void stop();
  /// Who joined, or is about to.
  struct Member {
    UniqueFd fd;
    PortId port = 0;
    bool direct = false;
    std::unique_ptr<Timer> patience;
  };
  struct Client;  ///< of the control socket
  Status listen(const char* name, int type, UniqueFd& out, void (Server::*accepted)(UniqueFd));
  void portAccepted(UniqueFd fd);
  void controlAccepted(UniqueFd fd);
  void readJoin(std::uint64_t number);
  Status joinMember(std::uint64_t number, Member& member, const Json& request, UniqueFd tap,
                    std::vector<UniqueFd>& queues);
  void nameAnew(PortSettings& settings) const;
  Result<std::unique_ptr<MessageNet>> cableOf(UniqueFd tap);
  Result<DirectLink::Made> plugDirect(const Json& wanted, const PortSettings& settings, UniqueFd existing);
  void hear(std::uint64_t number);
  void memberGone(std::uint64_t number);
  void readControl(std::uint64_t number);
  Json answer(const Json& request, Client& client);
  Json startCapture(const Json& request, Client& client);
  void writeControl(std::uint64_t number);
  void dropClient(std::uint64_t number);
  void tapAll();
  void restLater();

  EventLoop& loop_;
  Network& network_;
  std::string folder_;
  UniqueFd ports_, control_;
  std::map<std::uint64_t, std::unique_ptr<Member>> members_;
  std::map<std::uint64_t, std::unique_ptr<Client>> clients_;
  std::uint64_t next_ = 1;
  std::unique_ptr<Timer> rest_;
  bool stops_ = false;
};

}  // namespace lodge::network
