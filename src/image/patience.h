// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

#include "base/error.h"

namespace lodge::image {

/// A disk's server that answers nothing for so long is silent.
inline constexpr std::chrono::seconds kServerPatience(10);
/// So long one request may take whose server answers others.
inline constexpr std::chrono::seconds kRequestPatience(60);

/// While one exists, what this thread asks of network disks ends: with ETIMEDOUT where the server is silent for
/// kServerPatience, or the request takes kRequestPatience. What was given up may still be done by the server; until it
/// has answered, nothing that comes later overtakes a write that was given up. Without one, requests wait for their
/// server as long as it takes, as those of a guest must.
class Impatience {
 public:
  Impatience() { ++depth_; }
  ~Impatience() { --depth_; }
  Impatience(const Impatience&) = delete;
  Impatience& operator=(const Impatience&) = delete;
  static bool applies() { return depth_ != 0; }

 private:
  static inline thread_local unsigned depth_ = 0;
};

/// That a server was silent for kServerPatience while one did `what` ("read the disk 'nbd://x'").
Error unanswered(const std::string& what);

/// How long system calls on a socket, connect() among them, wait (EAGAIN, or EINPROGRESS, then). 0: as long as it
/// takes.
void limitWaits(int socket, std::chrono::seconds longest);

}  // namespace lodge::image
