// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "cli/console_input.h"
#include "cli/console_output.h"
#include "cli/terminal.h"
#include "control/console_hub.h"
#include "control/machine_session.h"

namespace lodge::cli {

/// Standard input and output as a machine's console: raw terminal and monitor menu, or plain pipes. I/O thread only.
class Foreground {
 public:
  Foreground(EventLoop& loop, control::ConsoleHub& hub, control::MachineSession& session);
  ~Foreground();

  /// Takes the terminal, if there is one. Errors: io.
  Status start();
  /// SIGWINCH, SIGTSTP and SIGCONT.
  void onSignal(int signal);
  /// A line of Lodge's own for whoever sits at the terminal, or on standard error.
  void say(const std::string& text);
  /// Writes out what the guest said last and gives the terminal back.
  void finish(int milliseconds);

 private:
  void onKey(char key);
  void takeTerminal();

  control::ConsoleHub& hub_;
  control::MachineSession& session_;
  std::unique_ptr<Terminal> terminal_;
  ConsoleOutput output_;
  ConsoleInput input_;
};

/// "web: running on translate, 2 CPUs, 1 GiB of memory, up 12 s", from a session's or a control reply's description.
std::string describeState(const control::Json& state);

}  // namespace lodge::cli
