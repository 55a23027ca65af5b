// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "control/line_reader.h"
#include "control/protocol.h"
#include "control/runtime_folder.h"

namespace lodge::control {

/// A blocking connection to a running machine.
///   auto client = ControlClient::connect(folder, "web");
///   auto state = client->call({.kind = RequestKind::state});
class ControlClient {
 public:
  static constexpr int kAnswerLimit = 5000;  ///< milliseconds

  /// `waits`: two seconds at most for one that has just been started. Errors: notFound, io.
  static Result<ControlClient> connect(const RuntimeFolder& folder, const std::string& name, bool waits = true);
  ControlClient(std::string name, UniqueFd fd) : name_(std::move(name)), fd_(std::move(fd)) {}

  /// Sends a request and waits for its answer for `milliseconds` (-1: for ever). Errors: the machine's own; busy (no
  /// answer in time); io (the connection broke: the process ended).
  using OnProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  /// `onProgress` is called while the machine tells how far it has come; each time the limit begins anew.
  Result<Json> call(Request request, int milliseconds = kAnswerLimit, const OnProgress& onProgress = {});

  /// After a consoleAttach: the connection, and the bytes of frames that came with the answer.
  UniqueFd takeConnection(std::string& rest);

 private:
  Status send(std::string_view line);
  Result<std::string> receiveLine(int milliseconds);

  std::string name_;
  UniqueFd fd_;
  LineReader lines_{kMaxAnswerLength};
  std::uint64_t nextId_ = 1;
};

}  // namespace lodge::control
