// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace lodge::network {

/// Replies of processes of Lodge's to each other: {"ok":true,...} or {"ok":false,"kind":...,"error":...,"hint":...}.
inline bool succeeded(const nlohmann::json& reply) {
  auto it = reply.is_object() ? reply.find("ok") : reply.end();
  return reply.is_object() && it != reply.end() && it->is_boolean() && it->get<bool>();
}

inline Error errorFrom(const nlohmann::json& reply) {
  auto text = [&](const char* key) {
    if (!reply.is_object()) return std::string();
    auto it = reply.find(key);
    return it != reply.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  ErrorKind kind = ErrorKind::io;
  for (auto k : {ErrorKind::invalidArgument, ErrorKind::notFound, ErrorKind::alreadyExists, ErrorKind::permissionDenied,
                 ErrorKind::busy, ErrorKind::corrupt, ErrorKind::unsupported}) {
    if (toString(k) == text("kind")) kind = k;
  }
  std::string message = text("error");
  return Error(kind, message.empty() ? "an answer without sense" : message).withHint(text("hint"));
}

}  // namespace lodge::network
