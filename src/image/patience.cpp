// SPDX-License-Identifier: Apache-2.0
#include "image/patience.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace lodge::image {

Error unanswered(const std::string& what) {
  return Error(ErrorKind::io, fmt::format("{}: its server has not answered for {} s", what, kServerPatience.count()))
      .withHint("see whether the server runs and can be reached");
}

void limitWaits(int socket, std::chrono::seconds longest) {
  timeval limit{.tv_sec = longest.count(), .tv_usec = 0};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

}  // namespace lodge::image
