// SPDX-License-Identifier: Apache-2.0
// Any bytes as what an NBD client sends.
#include <sys/socket.h>

#include <cstdint>
#include <thread>

#include "base/log.h"
#include "image/format.h"
#include "image/nbd_server.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  using namespace lodge::image;
  static const bool quiet = (setLogFile(-1), setLogLevel(LogLevel::error), true);
  (void)quiet;
  constexpr std::size_t kMost = 60000;  // what a socket's buffer takes without a reader
  if (size < 1 || size > kMost) return 0;
  auto files = makeMemoryFiles();
  auto file = files->create("a", true);
  if (!file || (*file)->truncate(1 << 20) != 0) return 0;
  auto image = openImage("a", "raw", {}, *files);
  int pair[2];
  if (!image || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  UniqueFd server(pair[0]), client(pair[1]);
  int buffer = 1 << 20;
  ::setsockopt(client.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  if (::send(client.get(), data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return 0;
  ::shutdown(client.get(), SHUT_WR);
  std::thread reader([&] {
    char bytes[4096];
    while (::recv(client.get(), bytes, sizeof bytes, 0) > 0) {
    }
  });
  ServeOptions options;
  options.exportName = "x";
  options.readOnly = (data[0] & 1) != 0;
  options.threads = 1 + (data[0] >> 1 & 1);
  serveNbdClient(server.get(), **image, options);
  reader.join();
  return 0;
}
