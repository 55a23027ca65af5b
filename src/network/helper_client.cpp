// SPDX-License-Identifier: Apache-2.0
#include "network/helper_client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>

#include "base/text.h"
#include "network/helper.h"
#include "network/reply.h"

namespace lodge::network {

namespace {

constexpr int kPatienceMilliseconds = 40'000;
constexpr int kEndMilliseconds = 10'000;

}  // namespace

std::string helperPath() {
  std::array<char, PATH_MAX> own;
  ssize_t length = ::readlink("/proc/self/exe", own.data(), own.size());
  if (length <= 0) return {};
  std::string folder(own.data(), static_cast<std::size_t>(length));
  folder.resize(folder.rfind('/'));
  for (const char* place : {"/lodge-network-helper", "/../libexec/lodge/lodge-network-helper"}) {
    if (::access((folder + place).c_str(), X_OK) == 0) return folder + place;
  }
  return {};
}

Result<std::unique_ptr<HelperClient>> HelperClient::start(int lock) {
  std::string path = helperPath();
  if (path.empty()) {
    return Error(ErrorKind::notFound, "there is no lodge-network-helper that this user may run")
        .withHint("it belongs beside the program or in libexec/lodge; kinds user, switch and isolated do without");
  }
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return Error::fromErrno(errno, "socket pair");
  UniqueFd mine(ends[0]), theirs(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
  // Whoever waits for the end of this process's output shall not wait for the helper.
  for (int fd : {STDOUT_FILENO, STDERR_FILENO})
    ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  if (lock >= 0) ::posix_spawn_file_actions_adddup2(&actions, lock, kHelperLock);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  // A group of its own: what ends the network's process by a terminal must not end the one that cleans up.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  char environment[] = "LC_ALL=C";
  char* environments[] = {environment, nullptr};
  char* arguments[] = {path.data(), nullptr};
  pid_t pid = -1;
  int error = ::posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environments);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return Error::fromErrno(error, "start " + inQuotes(path));
  return std::unique_ptr<HelperClient>(new HelperClient(std::move(mine), pid));
}

HelperClient::~HelperClient() {
  socket_.reset();
  for (int waited = 0; waited < kEndMilliseconds; waited += 10) {
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
    ::poll(nullptr, 0, 10);
  }
}

bool HelperClient::alive() const {
  pollfd p{socket_.get(), 0, 0};  // an answer that nobody waited for may be there
  return ::poll(&p, 1, 0) == 0;
}

Result<HelperClient::Answer> HelperClient::ask(const nlohmann::json& request, const std::vector<int>& fds) {
  nlohmann::json numbered = request;
  numbered["serial"] = ++serial_;
  if (Status sent = sendMessage(socket_.get(), numbered, fds); !sent) return std::move(sent).error();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMilliseconds);
  Result<Answer> reply = Message();
  do {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd p{socket_.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&p, 1, static_cast<int>(left)) <= 0)
      return Error(ErrorKind::io, "the network helper does not answer");
    reply = receiveMessage(socket_.get());
    if (!reply) return std::move(reply).error().context("the network helper");
    // One to a request before, which was not waited for so long, is nobody's.
  } while (reply->facts.value("serial", serial_) != serial_);
  if (succeeded(reply->facts)) return reply;
  Error error = errorFrom(reply->facts);
  if (error.kind() != ErrorKind::permissionDenied) return error;
  return std::move(error).withHint(
      "this needs CAP_NET_ADMIN: run as root, or let an administrator give the helper to trusted users: "
      "setcap cap_net_admin,cap_net_raw+ep lodge-network-helper");
}

}  // namespace lodge::network
