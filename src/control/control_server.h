// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "base/event_loop.h"
#include "control/console_hub.h"
#include "control/machine_session.h"

namespace lodge::control {

class ControlConnection;

/// Answers the control socket of this process's machine. Clients are the same user's (or root's) processes, which does
/// not make their bytes sensible: every limit is enforced here. I/O thread only. To be kept until the session is
/// through with its callbacks.
class ControlServer {
 public:
  static constexpr std::size_t kMaxClients = 32;

  /// `listener` is a listening, non-blocking socket.
  ControlServer(EventLoop& loop, MachineSession& session, ConsoleHub& hub, UniqueFd listener);
  ~ControlServer();
  Status start();

  /// Stops accepting, and gives clients up to `milliseconds` to take what they have been sent: the last console output
  /// and how the machine ended.
  void finish(int milliseconds);

  EventLoop& loop() { return loop_; }
  MachineSession& session() { return session_; }
  ConsoleHub& hub() { return hub_; }
  /// Ends a connection, soon: its own functions may still be running.
  void remove(std::uint64_t connection);

 private:
  void accept();

  EventLoop& loop_;
  MachineSession& session_;
  ConsoleHub& hub_;
  UniqueFd listener_;
  std::unique_ptr<Timer> acceptAgain_;
  std::map<std::uint64_t, std::unique_ptr<ControlConnection>> connections_;
  std::uint64_t nextConnection_ = 0;
};

}  // namespace lodge::control
