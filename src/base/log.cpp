// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <unistd.h>

#include <atomic>

namespace lodge {

namespace {
std::atomic<LogLevel> level{LogLevel::warning};
std::atomic<int> logFd{-1};
}  // namespace

void setLogLevel(LogLevel value) {
  level = value;
}
LogLevel logLevel() {
  return level;
}
void setLogFile(int fd) {
  logFd = fd;
}

void logLine(LogLevel lineLevel, const std::string& text) {
  static constexpr const char* kNames[] = {"error", "warning", "info", "debug"};
  std::string line = fmt::format("lodge: {}: {}\r\n", kNames[static_cast<unsigned>(lineLevel)], text);
  if (logFd >= 0 || ::isatty(STDERR_FILENO) == 0) line.erase(line.size() - 2, 1);
  [[maybe_unused]] ssize_t n = ::write(logFd >= 0 ? logFd.load() : STDERR_FILENO, line.data(), line.size());
}

}  // namespace lodge
