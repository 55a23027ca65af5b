// SPDX-License-Identifier: Apache-2.0
#include "control/control_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "control/control_connection.h"

namespace lodge::control {

namespace {
bool isAllowed(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}
}  // namespace

ControlServer::ControlServer(EventLoop& loop, MachineSession& session, ConsoleHub& hub, UniqueFd listener)
    : loop_(loop),
      session_(session),
      hub_(hub),
      listener_(std::move(listener)),
      acceptAgain_(loop.makeTimer([this] { [[maybe_unused]] Status watched = start(); })) {
  session_.onEnd([this](const EndRecord& record) {
    for (auto& [id, connection] : connections_) connection->machineEnded(record);
  });
}

ControlServer::~ControlServer() {
  if (listener_) loop_.unwatch(listener_.get());
}

Status ControlServer::start() {
  return loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

void ControlServer::accept() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
    // The socket stays readable while the client waits, so watching on would spin.
    loop_.unwatch(listener_.get());
    acceptAgain_->arm(loop_.clock().now() + kNanosecondsPerSecond);
    return;
  }
  if (!isAllowed(fd.get()) || connections_.size() >= kMaxClients) {
    log(LogLevel::info, "turned a control client away");
    return;
  }
  std::uint64_t id = nextConnection_++;
  auto connection = std::make_unique<ControlConnection>(*this, id, std::move(fd));
  connection->start();
  connections_.emplace(id, std::move(connection));
}

void ControlServer::remove(std::uint64_t connection) {
  loop_.post([this, connection] { connections_.erase(connection); });
}

void ControlServer::finish(int milliseconds) {
  if (listener_) loop_.unwatch(listener_.get());
  listener_.reset();
  for (auto& [id, connection] : connections_) connection->finish(milliseconds);
  connections_.clear();
}

}  // namespace lodge::control
