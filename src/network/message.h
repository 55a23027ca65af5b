// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace lodge::network {

/// One message of a SOCK_SEQPACKET socket: a JSON object, and up to nine file descriptors beside it.
struct Message {
  nlohmann::json facts;
  std::vector<UniqueFd> fds;
};
inline constexpr std::size_t kLargestMessage = 60000;

Status sendMessage(int socket, const nlohmann::json& json, const std::vector<int>& fds);
/// Errors: io (the other side has gone), corrupt (no JSON object).
Result<Message> receiveMessage(int socket);

}  // namespace lodge::network
