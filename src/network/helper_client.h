// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "network/message.h"

namespace lodge::network {

/// The helper that this user may run: beside the program, or where it is installed. Empty: none.
std::string helperPath();

/// The small privileged process that does what needs CAP_NET_ADMIN (network/helper.h), as its user sees it. When this
/// object goes, or its process dies, the helper takes everything down again that it made.
class HelperClient {
 public:
  using Answer = Message;
  /// Errors: permissionDenied with what would help, notFound (no helper is installed).
  /// `lock`: a descriptor that the helper keeps open while it lives; -1: none.
  static Result<std::unique_ptr<HelperClient>> start(int lock = -1);
  ~HelperClient();
  HelperClient(const HelperClient&) = delete;
  HelperClient& operator=(const HelperClient&) = delete;

  /// Asks and waits up to 40 s. Errors: the helper's own; io if it has gone.
  Result<Answer> ask(const nlohmann::json& request, const std::vector<int>& fds = {});
  bool alive() const;
  pid_t pid() const { return pid_; }

 private:
  HelperClient(UniqueFd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}
  UniqueFd socket_;
  pid_t pid_;
  std::uint64_t serial_ = 0;  ///< of the last request
};

}  // namespace lodge::network
