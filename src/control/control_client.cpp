// SPDX-License-Identifier: Apache-2.0
#include "control/control_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "base/text.h"

namespace lodge::control {

namespace {
Error noAnswer(const std::string& name) {
  return Error(ErrorKind::busy, fmt::format("machine {} does not answer", inQuotes(name)))
      .withHint(fmt::format("'lodge kill {}' ends its process", name));
}
}  // namespace

Result<ControlClient> ControlClient::connect(const RuntimeFolder& folder, const std::string& name, bool waits) {
  auto fd = folder.connect(name, waits);
  if (!fd) return std::move(fd).error();
  return ControlClient(name, std::move(*fd));
}

Result<Json> ControlClient::call(Request request, int milliseconds, const OnProgress& onProgress) {
  request.id = nextId_++;
  if (Status sent = send(formatRequest(request)); !sent) return std::move(sent).error();
  auto line = receiveLine(milliseconds);
  for (std::uint64_t done = 0, total = 0; line && parseProgress(*line, done, total);) {
    if (onProgress) onProgress(done, total);
    line = receiveLine(milliseconds);
  }
  if (!line) return std::move(line).error();
  auto reply = parseReply(*line);
  if (!reply) return std::move(reply).error().context("machine " + inQuotes(name_));
  return reply;
}

Status ControlClient::send(std::string_view line) {
  while (!line.empty()) {
    ssize_t n = ::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::fromErrno(errno, "ask machine " + inQuotes(name_));
    line.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<std::string> ControlClient::receiveLine(int milliseconds) {
  using Milliseconds = std::chrono::milliseconds;
  auto deadline = std::chrono::steady_clock::now() + Milliseconds(milliseconds);
  for (;;) {
    if (auto line = lines_.next()) return *line;
    if (lines_.tooLong())
      return Error(ErrorKind::corrupt, "machine " + inQuotes(name_) + " answers with an endless line");
    auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd entry{fd_.get(), POLLIN, 0};
    int ready = ::poll(&entry, 1, milliseconds < 0 ? -1 : static_cast<int>(std::max<std::int64_t>(0, left)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return noAnswer(name_);
    std::array<char, 16384> buffer;
    ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Error(ErrorKind::io, "the process of machine " + inQuotes(name_) + " went away");
    lines_.add(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
  }
}

UniqueFd ControlClient::takeConnection(std::string& rest) {
  rest = lines_.takeRest();
  return std::move(fd_);
}

}  // namespace lodge::control
