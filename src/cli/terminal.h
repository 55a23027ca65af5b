// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "base/error.h"
#include "control/protocol.h"

namespace lodge::cli {

/// The terminal at standard input, in raw mode while it is ours. It is put back on every way out: by restore() and the
/// destructor, by a handler if this process crashes, and by a small child process if it is killed (SIGKILL, the host's
/// out-of-memory killer). One at a time; main thread.
class Terminal {
 public:
  /// Whether standard input is a terminal.
  static bool isThere();
  /// Whether this process is in the terminal's foreground and may read it and change its mode.
  static bool isForeground();

  /// Saves the terminal's mode and starts the guard. Not raw yet.
  static Result<std::unique_ptr<Terminal>> open();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Raw mode: every key goes to the guest, none makes a signal. Errors: io.
  Status makeRaw();
  void restore();

  static control::WindowSize window();

 private:
  Terminal() = default;
  void startGuard();

  int guardPipe_ = -1;
  pid_t guard_ = -1;
};

}  // namespace lodge::cli
