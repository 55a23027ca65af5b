// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "cli/monitor_keys.h"
#include "control/console_hub.h"

namespace lodge::cli {

/// Reads standard input for the guest: a terminal (with the monitor's keys taken out), a pipe or a file. What the guest
/// does not take is not read; the end of the input is not the machine's. I/O thread only.
class ConsoleInput : public control::ConsoleHub::Member {
 public:
  /// `onKey` is called with each monitor key; empty if there is no monitor.
  ConsoleInput(EventLoop& loop, control::ConsoleHub& hub, std::function<void(char)> onKey);
  ~ConsoleInput() override;
  void start();
  /// Reads on, after the process came back to the terminal's foreground.
  void resume();

  void consoleOutput(std::string_view) override {}
  void consoleRoom() override;

 private:
  void watch();
  void read();
  void readSoon();
  void typed(std::string_view bytes);
  /// Gives the guest what is pending. True if nothing is left.
  bool offer();

  EventLoop& loop_;
  control::ConsoleHub& hub_;
  std::function<void(char)> onKey_;
  MonitorKeys keys_;
  std::string pending_;
  bool watching_ = false, ended_ = false, pollable_ = true;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lodge::cli
