// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "cli/monitor_keys.h"
#include "cli/terminal.h"
#include "control/console_frames.h"
#include "control/machine_end.h"
#include "control/runtime_folder.h"

namespace lodge::cli {

/// `lodge console`: this process's standard input and output attached to a running machine's console.
class ConsoleClient {
 public:
  ConsoleClient(control::RuntimeFolder& folder, std::string name) : folder_(folder), name_(std::move(name)) {}

  /// Serves until the user detaches or the machine ends; returns how it ended, if it did. Errors: the connection's.
  Result<std::optional<control::EndRecord>> run();

 private:
  Status attach();
  Status serve();
  void typed();
  void onKey(char key);
  void onSignal(int signal);
  void request(control::RequestKind kind, const std::string& done);
  void say(const std::string& text);
  void received();
  void show(const control::Frame& frame);
  void send();
  void sendWindow();

  control::RuntimeFolder& folder_;
  std::string name_;
  UniqueFd connection_, signals_;
  std::unique_ptr<Terminal> terminal_;
  MonitorKeys keys_;
  control::FrameReader frames_;
  std::string out_;  ///< frames for the machine
  bool inputEnded_ = false, finished_ = false;
  std::optional<control::EndRecord> end_;
};

}  // namespace lodge::cli
