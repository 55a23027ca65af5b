// SPDX-License-Identifier: Apache-2.0
#include "control/process_id.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"

namespace lodge::control {

std::optional<std::uint64_t> startTimeOf(pid_t pid) {
  UniqueFd fd(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  std::array<char, 1024> buffer{};
  ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
  if (n <= 0) return std::nullopt;
  std::string_view text(buffer.data(), static_cast<std::size_t>(n));
  // The command (field 2) is in parentheses and may hold anything; what follows the last ')' is field 3 and on.
  std::size_t close = text.rfind(')');
  if (close == std::string_view::npos || close + 2 > text.size()) return std::nullopt;
  auto fields = split(text.substr(close + 2), ' ');
  constexpr std::size_t kStartTimeIndex = 22 - 3;
  if (fields.size() <= kStartTimeIndex) return std::nullopt;
  return parseNumber(fields[kStartTimeIndex]);
}

ProcessId thisProcess() {
  return {::getpid(), startTimeOf(::getpid()).value_or(0)};
}

Result<UniqueFd> openProcess(const ProcessId& process) {
  // The system call by number: glibc has a wrapper only from 2.36.
  UniqueFd fd(process.pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)) : -1);
  int error = process.pid > 0 ? errno : ESRCH;
  if (!fd && error != ESRCH) return Error::fromErrno(error, fmt::format("open process {}", process.pid));
  // After the pidfd is open its number cannot be reused, so a matching start time now proves that it is the one.
  if (!fd || startTimeOf(process.pid) != process.startTime) {
    return Error(ErrorKind::notFound, fmt::format("process {} has ended", process.pid));
  }
  return fd;
}

bool waitForProcessEnd(int pidfd, int milliseconds) {
  pollfd entry{pidfd, POLLIN, 0};
  return ::poll(&entry, 1, milliseconds) > 0;
}

Status signalProcess(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0 || errno == ESRCH) return {};
  return Error::fromErrno(errno, fmt::format("send signal {}", signal));
}

}  // namespace lodge::control
