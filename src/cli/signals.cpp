// SPDX-License-Identifier: Apache-2.0
#include "cli/signals.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

namespace lodge::cli {

namespace {
sigset_t answeredSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGWINCH, SIGTSTP, SIGCONT}) ::sigaddset(&set, signal);
  return set;
}
}  // namespace

void blockSignals() {
  sigset_t set = answeredSignals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

Result<UniqueFd> openSignalFd() {
  sigset_t set = answeredSignals();
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return Error::fromErrno(errno, "signalfd");
  return fd;
}

int readSignal(int fd) {
  signalfd_siginfo info{};
  return ::read(fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info) ? static_cast<int>(info.ssi_signo) : 0;
}

Result<std::unique_ptr<SignalWatch>> SignalWatch::create(EventLoop& loop, std::function<void(int)> callback) {
  auto fd = openSignalFd();
  if (!fd) return std::move(fd).error();
  int number = fd->get();
  std::unique_ptr<SignalWatch> watch(new SignalWatch(loop, std::move(*fd)));
  Status watched = loop.watch(number, EPOLLIN, [number, callback = std::move(callback)](std::uint32_t) {
    while (int signal = readSignal(number)) callback(signal);
  });
  if (!watched) return std::move(watched).error();
  return watch;
}

SignalWatch::~SignalWatch() {
  loop_.unwatch(fd_.get());
}

}  // namespace lodge::cli
