// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <string>

#include "base/file.h"
#include "image/image.h"

namespace lodge::image {

struct ServeOptions {
  std::string exportName{};
  bool readOnly = true;
  unsigned threads = 4;  ///< requests of one client that are worked on at once
};

/// Speaks NBD with one client until it leaves; blocks. The socket is shut down from elsewhere to end it early.
/// The image may be served to several clients at once.
void serveNbdClient(int socket, Image& image, const ServeOptions& options);

/// A listening Unix socket (which must not exist yet) or a TCP socket on the loopback address. Errors: alreadyExists,
/// io.
Result<UniqueFd> listenUnix(const std::string& path);
Result<UniqueFd> listenLoopback(std::uint16_t port);

}  // namespace lodge::image
