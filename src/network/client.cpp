// SPDX-License-Identifier: Apache-2.0
#include "network/client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "network/message.h"
#include "network/reply.h"
#include "network/store.h"

extern char** environ;

namespace lodge::network {

namespace {

constexpr int kPatienceMilliseconds = 20'000, kStartMilliseconds = 60'000;

Result<UniqueFd> connectTo(const std::string& name, const char* socketName, int type) {
  auto folder = runtimeFolderOf(name);
  if (!folder) return std::move(folder).error();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = *folder + "/" + socketName;
  if (path.size() >= sizeof address.sun_path)
    return Error(ErrorKind::invalidArgument, "the path " + inQuotes(path) + " is too long for a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error(ErrorKind::notFound, "network " + inQuotes(name) + " is not up")
        .withHint("a machine with --net " + name + " brings it up, or 'lodge network up " + name + "'");
  }
  return fd;
}

bool readable(int fd, int milliseconds) {
  pollfd p{fd, POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&p, 1, milliseconds);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

/// Its errors as it prints them, "lodge: MESSAGE; HINT".
Error startFailure(std::string said) {
  while (!said.empty() && said.back() == '\n') said.pop_back();
  if (said.starts_with("lodge: ")) said = said.substr(7);
  if (said.empty()) said = "the network's process ended before it served";
  return Error(ErrorKind::io, said);
}

}  // namespace

bool isUp(const std::string& name) {
  return connectTo(name, "control", SOCK_STREAM).ok();
}

Status bringUp(const std::string& name) {
  if (isUp(name)) return {};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Error::fromErrno(errno, "pipe");
  UniqueFd readEnd(ends[0]), writeEnd(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, writeEnd.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, writeEnd.get(), STDERR_FILENO);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  std::string path = "/proc/self/exe", verb = "network", inner = "up", option = "--while-used", copy = name;
  char* arguments[] = {path.data(), verb.data(), inner.data(), option.data(), copy.data(), nullptr};
  pid_t pid = -1;
  int error = ::posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  writeEnd.reset();
  if (error != 0) return Error::fromErrno(error, "start the network's process");
  // What is started leaves a child of its own behind, which closes the pipe once it serves.
  std::string said;
  std::array<char, 512> buffer;
  while (readable(readEnd.get(), kStartMilliseconds)) {
    ssize_t n = ::read(readEnd.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    said.append(buffer.data(), static_cast<std::size_t>(n));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && isUp(name)) return {};
  return startFailure(std::move(said));
}

Result<UniqueFd> askStream(const std::string& name, const Json& request) {
  auto fd = connectTo(name, "control", SOCK_STREAM);
  if (!fd) return fd;
  std::string text = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (std::size_t at = 0; at < text.size();) {
    ssize_t sent = ::send(fd->get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return Error::fromErrno(errno, "network " + inQuotes(name));
    at += static_cast<std::size_t>(sent);
  }
  // Byte by byte: what comes after the line is the caller's.
  std::string line;
  for (char c = 0; c != '\n';) {
    if (!readable(fd->get(), kPatienceMilliseconds) || ::recv(fd->get(), &c, 1, 0) != 1)
      return Error(ErrorKind::io, "network " + inQuotes(name) + " does not answer");
    line += c;
  }
  Json reply = Json::parse(line, nullptr, false);
  if (!succeeded(reply)) return errorFrom(reply);
  return fd;
}

Result<Json> ask(const std::string& name, const Json& request) {
  auto fd = connectTo(name, "control", SOCK_STREAM);
  if (!fd) return std::move(fd).error();
  std::string text = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n", reply;
  if (::send(fd->get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
    return Error(ErrorKind::io, "network " + inQuotes(name) + " does not listen");
  std::array<char, 65536> buffer;
  while (readable(fd->get(), kPatienceMilliseconds)) {
    ssize_t n = ::recv(fd->get(), buffer.data(), buffer.size(), 0);
    if (n <= 0) break;
    reply.append(buffer.data(), static_cast<std::size_t>(n));
  }
  Json json = Json::parse(reply, nullptr, false);
  if (!succeeded(json)) return errorFrom(json);
  return json;
}

Result<Joined> join(const std::string& name, const Json& settings, int tap) {
  // A network that is just going down closes the door on whoever comes: the next try starts it anew.
  for (int attempt = 0;; ++attempt) {
    // Whoever brings a tap device may be in another network namespace than the network shall be in.
    if (tap < 0 || settings.contains("direct")) {
      if (Status up = bringUp(name); !up) return std::move(up).error();
    }
    auto fd = connectTo(name, "ports", SOCK_SEQPACKET);
    if (!fd && attempt < 3) continue;
    if (!fd) return std::move(fd).error();
    Status sent = sendMessage(fd->get(), settings, tap >= 0 ? std::vector<int>{tap} : std::vector<int>{});
    if (!sent && attempt < 3) continue;
    if (!sent) return std::move(sent).error();
    if (!readable(fd->get(), kPatienceMilliseconds))
      return Error(ErrorKind::io, "network " + inQuotes(name) + " does not answer");
    auto reply = receiveMessage(fd->get());
    if (!reply && attempt < 3) continue;
    if (!reply) return std::move(reply).error();
    if (!succeeded(reply->facts)) return errorFrom(reply->facts);
    int flags = ::fcntl(fd->get(), F_GETFL);
    ::fcntl(fd->get(), F_SETFL, flags | O_NONBLOCK);
    return Joined{std::move(*fd), reply->facts.value("mtu", 1500u), reply->facts.value("direct", false),
                  std::move(reply->fds)};
  }
}

}  // namespace lodge::network
