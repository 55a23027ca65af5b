// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "base/event_loop.h"
#include "base/file.h"

namespace lodge::cli {

/// Blocks the signals that a machine's process answers on its event loop, in this thread and those it will start.
/// SIGPIPE is ignored. To be called before any thread is started.
void blockSignals();

/// Delivers the blocked signals on the I/O thread.
class SignalWatch {
 public:
  static Result<std::unique_ptr<SignalWatch>> create(EventLoop& loop, std::function<void(int signal)> callback);
  ~SignalWatch();

 private:
  SignalWatch(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}
  EventLoop& loop_;
  UniqueFd fd_;
};

/// A signalfd for what blockSignals() blocks.
Result<UniqueFd> openSignalFd();
/// The next signal from it, 0 if there is none.
int readSignal(int fd);

}  // namespace lodge::cli
