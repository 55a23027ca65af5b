// SPDX-License-Identifier: Apache-2.0
#include "network/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <optional>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/text.h"
#include "network/client.h"
#include "network/lease_file.h"
#include "network/server.h"
#include "network/store.h"

namespace lodge::network {

namespace {

constexpr off_t kLargestLog = 1 << 20;

/// The log of earlier runs goes when it is long.
UniqueFd openLog(const std::string& folder) {
  std::string path = folder + "/log";
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat info {};
  if (fd && ::fstat(fd.get(), &info) == 0 && info.st_size > kLargestLog) [[maybe_unused]]
    int cut = ::ftruncate(fd.get(), 0);
  return fd;
}

std::string describe(const Error& error) {
  return error.hint().empty() ? error.message() : error.message() + "; " + error.hint();
}

/// All of the serving process's life after the fork. What fails before it serves goes to `told`.
int serve(const NetworkDefinition& definition, bool hold, const std::string& folder, int lock, UniqueFd told) {
  auto fail = [&](const Error& error) {
    std::string text = describe(error);
    [[maybe_unused]] ssize_t written = ::write(told.get(), text.data(), text.size());
    return 1;
  };
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  ::sigemptyset(&signals);
  for (int s : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&signals, s);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd signalFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  auto loop = EventLoop::create();
  if (!loop) return fail(loop.error());
  Status watched = (*loop)->watch(signalFd.get(), EPOLLIN, [&](std::uint32_t) { (*loop)->stop(); });
  if (!watched) return fail(watched.error());
  Network network(**loop, definition);
  if (hold) network.hold();
  network.setLock(lock);
  if (Status up = network.start(); !up) return fail(up.error());
  std::optional<LeaseFile> leases(std::in_place, **loop, network, folder + "/leases");
  std::optional<Server> server(std::in_place, **loop, network, folder);
  if (Status started = server->start(); !started) return fail(started.error());
  UniqueFd log = openLog(folder);
  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ::dup2(null.get(), STDIN_FILENO);
  ::dup2(null.get(), STDOUT_FILENO);
  ::dup2(log ? log.get() : null.get(), STDERR_FILENO);
  setLogLevel(LogLevel::info);
  told.reset();
  Status served = (*loop)->run();
  server.reset();
  leases.reset();
  if (!served) lodge::log(LogLevel::error, "{}", served.error().message());
  (*loop)->unwatch(signalFd.get());
  return served ? 0 : 1;
}

}  // namespace

Status startServing(const std::string& name, bool keep) {
  using Clock = std::chrono::steady_clock;
  auto store = Store::open();
  if (!store) return std::move(store).error();
  auto definition = store->load(name);
  if (!definition) return std::move(definition).error();
  auto folder = runtimeFolderOf(name);
  if (!folder) return std::move(folder).error();
  UniqueFd lock(::open((*folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return Error::fromErrno(errno, "lock of network " + inQuotes(name));
  constexpr timespec kPause = {0, 50'000'000};
  constexpr std::chrono::seconds kPatience(20);
  for (auto began = Clock::now(); ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0;) {
    // Another serves, or is about to begin or to end; one that was killed leaves its sockets' names.
    auto reply = ask(name, {{"do", "up"}, {"keep", keep}});
    if (reply) return {};
    if (reply.error().kind() == ErrorKind::invalidArgument) return std::move(reply).error();
    if (Clock::now() - began > kPatience)
      return Error(ErrorKind::busy,
                   "network " + inQuotes(name) + " is neither up nor down: its process does not answer")
          .withHint("try again, or end the process lodge-network");
    ::nanosleep(&kPause, nullptr);
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Error::fromErrno(errno, "pipe");
  UniqueFd readEnd(ends[0]), writeEnd(ends[1]);
  pid_t pid = ::fork();
  if (pid < 0) return Error::fromErrno(errno, "start the process of network " + inQuotes(name));
  if (pid == 0) {
    readEnd.reset();
    ::setsid();
    [[maybe_unused]] int moved = ::chdir("/");
    ::prctl(PR_SET_NAME, "lodge-network");
    ::_exit(serve(*definition, keep, *folder, lock.get(), std::move(writeEnd)));
  }
  writeEnd.reset();
  std::string said;
  std::array<char, 512> buffer;
  for (ssize_t n; (n = ::read(readEnd.get(), buffer.data(), buffer.size())) != 0;) {
    if (n > 0)
      said.append(buffer.data(), static_cast<std::size_t>(n));
    else if (errno != EINTR)
      break;
  }
  if (said.empty()) return {};
  std::size_t hint = said.find("; ");
  Error error(ErrorKind::io, said.substr(0, hint));
  if (hint != std::string::npos) return std::move(error).withHint(said.substr(hint + 2));
  return error;
}

}  // namespace lodge::network
