// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/file.h"
#include "net/backend.h"
#include "network/definition.h"

namespace lodge::network {

/// Starts the network's process if none runs, and waits until it serves. Errors: what the process says; notFound.
Status bringUp(const std::string& name);
bool isUp(const std::string& name);

/// Asks a running network (network/server.h). Errors: notFound (it does not run), its own.
Result<Json> ask(const std::string& name, const Json& request);
/// The same, and the connection for what follows the answer.
Result<UniqueFd> askStream(const std::string& name, const Json& request);

/// A port's socket, and what the network said of itself.
struct Joined {
  UniqueFd fd;
  unsigned mtu = 1500;
  bool direct = false;           ///< in the host's bridge by a tap device of its own: frames go through that
  std::vector<UniqueFd> queues;  ///< of that device, unless it was brought along
};

/// Joins; waits for the answer. With `tap` that device becomes the port, for as long as the returned socket is open.
/// The network is brought up if need be, but not for a tap device of somebody else's. With settings
/// {"direct":{"queues":N,"must":true}} a device in the host's bridge is asked for, or `tap` is one. Errors:
/// bringUp()'s, and what the network says.
Result<Joined> join(const std::string& name, const Json& settings, int tap = -1);

/// A network card's cable into a network: joined at once, and again each second if the network's process dies. Beside
/// what a port has, settings "direct" ("on", "off", else where vhost-net is to be had here) and "vhost" (as
/// vhostUseFrom()) say whether the card gets a tap device in the host's bridge; `queues` pairs at most. Errors:
/// join()'s and openTapNet()'s.
Result<std::unique_ptr<NetBackend>> openNetworkPort(EventLoop& loop, const std::string& name, Json settings,
                                                    unsigned queues);

}  // namespace lodge::network
