// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/machine_process.h"

namespace lodge::cli {

namespace {

/// Away from the terminal: nothing to read, nothing to write to but the machine's log.
void leaveTerminal(int logFd) {
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(logFd >= 0 ? logFd : null, STDERR_FILENO);
  ::close(null);
  [[maybe_unused]] int done = ::chdir("/");
}

/// The child's life. What it tells the parent: "+NAME" once the machine runs; what fails before is printed here.
int child(const RunOptions& options, const Program& program, int pipe) {
  ::setsid();
  ::signal(SIGPIPE, SIG_IGN);
  return runMachine(options, program, [&](control::MachineFolder& folder) {
    auto log = folder.openLog();
    std::string message = "+" + folder.name();
    bool told = ::write(pipe, message.data(), message.size()) == static_cast<ssize_t>(message.size());
    leaveTerminal(log ? log->get() : -1);
    ::close(pipe);
    return told;
  });
}

std::string readAll(int fd) {
  std::string text;
  char buffer[256];
  for (;;) {
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

}  // namespace

int runDetached(const RunOptions& options, const Program& program) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::fromErrno(errno, "pipe"));
  UniqueFd readEnd(ends[0]);
  UniqueFd writeEnd(ends[1]);
  pid_t pid = ::fork();
  if (pid < 0) return fail(Error::fromErrno(errno, "start the machine's process"));
  if (pid == 0) {
    readEnd.reset();
    ::_exit(child(options, program, writeEnd.release()));
  }
  writeEnd.reset();
  std::string message = readAll(readEnd.get());
  if (message.size() > 1 && message[0] == '+') {
    return print(message.substr(1) + "\n") ? exit_status::kSuccess : exit_status::kLodgeError;
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
  return fail(Error(ErrorKind::internal, fmt::format("the machine's process ended by signal {} before the machine ran",
                                                     WIFSIGNALED(status) ? WTERMSIG(status) : 0)));
}

}  // namespace lodge::cli
