// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>

#include "base/event_loop.h"
#include "control/console_hub.h"
#include "control/machine_session.h"

namespace lodge::cli {

/// Writes the guest's output to a descriptor from a thread of its own, with blocking writes: descriptors at standard
/// output are shared with other programs and must not be made non-blocking. If the reader does not follow, the guest
/// stands still from 4 MiB of backlog until 1 MiB is left, so nothing is lost and nobody spins. I/O thread only.
class ConsoleOutput : public control::ConsoleHub::Member {
 public:
  ConsoleOutput(EventLoop& loop, control::MachineSession& session, int fd);
  ~ConsoleOutput() override;

  void consoleOutput(std::string_view bytes) override;
  void consoleRoom() override {}

  /// Waits until all is written; gives up after `milliseconds` (-1: never) or when SIGINT, SIGTERM or SIGHUP comes
  /// (they must be blocked). To be called after the loop has ended.
  void finish(int milliseconds);

 private:
  struct Queue;
  static void writeAll(const std::shared_ptr<Queue>& queue);

  control::MachineSession& session_;
  std::shared_ptr<Queue> queue_;
};

}  // namespace lodge::cli
