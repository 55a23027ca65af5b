// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "net/address.h"
#include "network/direct_ports.h"
#include "network/message.h"

namespace lodge::network {

/// The privileged side (CAP_NET_ADMIN, CAP_NET_RAW): a process of its own that answers a fixed set of requests over one
/// socket, runs `ip` and `nft` with arguments that it has checked, and undoes all of it when the socket closes.
///   {"do":"segment","name":N,"address":"192.168.5.1/24","address6":"fd00::1/64","masquerade":true,"forwards":[...]}
///     a bridge with the host's addresses, a tap device in it (its descriptor comes back), a table of rules
///   {"do":"join","name":N,"card":"eth0","host":true}
///     a tap device in the bridge `card`, or in a new bridge with the card, whose addresses and routes move there
///   {"do":"packet","card":"wlan0","name":N}
///     a packet socket on the card, and a tap device for what the host and the machines have among themselves
///   {"do":"route","tap":T,"address":A,"from":H,"set":true}   the host's route through that tap device to a machine
///   {"do":"tap","tap":"tap0"}        a tap or macvtap device that exists
///   {"do":"plug" | "rules" | "given" | "forget" | "drops" | "unplug",...}
///     a machine's own tap device in the bridge (network/direct_ports.h)
///   {"do":"clean","name":N}          what a helper that was killed left: its bridge, its rules
class Helper {
 public:
  /// Undoes everything.
  ~Helper();
  Helper() = default;
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  Result<Message> answer(const nlohmann::json& request, std::vector<UniqueFd> fds = {});

 private:
  Result<Message> segment(const nlohmann::json& request);
  Result<Message> join(const nlohmann::json& request);
  Result<Message> route(const nlohmann::json& request);
  Result<Message> packet(const nlohmann::json& request);
  Result<Message> device(const nlohmann::json& request);
  Result<Message> cleaned(const nlohmann::json& request);
  void clean(const std::string& name);
  Status moveCard(const std::string& card, const std::string& bridge, bool host);
  Result<UniqueFd> makeTap(const std::string& tap, const std::string& bridge, unsigned mtu);
  /// A command that takes back what was just done; run in reverse order, failures are not minded.
  void undoBy(std::vector<std::string> command) { undo_.push_back(std::move(command)); }

  void undoDownTo(std::size_t count);

  DirectPorts direct_;
  std::vector<std::string> hostTaps_;           ///< made for routes
  std::vector<std::vector<std::string>> undo_;  ///< commands; "write PATH VALUE"; "batch LINES", for `ip -batch`
};

/// Where the helper has its network's lock, if it was given one.
inline constexpr int kHelperLock = 3;

/// Names of what a network makes on the host: at most 13 characters, the same at each start.
std::string bridgeNameOf(const std::string& network);
std::string tableNameOf(const std::string& bridge);
std::string tapNameOf(const std::string& network);

/// Runs a program of the system's (found in /usr/sbin, /usr/bin, /sbin, /bin); its output, or what it complained of.
/// `input` goes to its standard input.
Result<std::string> runTool(const std::vector<std::string>& command, const std::string& input = {});
/// Of a file under /proc/sys. Where there is no such setting nothing is done.
void writeSetting(const std::string& path, const char* value);

}  // namespace lodge::network
