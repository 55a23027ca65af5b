// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

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
};

/// Joins; waits for the answer. With `tap` that device becomes the port, for as long as the returned socket is open.
/// The network is brought up if need be, but not for a tap device. Errors: bringUp()'s, and what the network says.
Result<Joined> join(const std::string& name, const Json& settings, int tap = -1);

/// A network card's cable into a network: joined at once, and again each second if the network's process dies.
Result<std::unique_ptr<NetBackend>> openNetworkPort(EventLoop& loop, const std::string& name, const Json& settings);

}  // namespace lodge::network
