// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace lodge {

enum class LogLevel : unsigned char { error, warning, info, debug };

/// Nothing above this level is printed; `warning` at start.
void setLogLevel(LogLevel level);
LogLevel logLevel();
/// One line to standard error ("lodge: warning: ..."), with "\r\n" while the terminal is in raw mode. Any thread.
void logLine(LogLevel level, const std::string& text);
/// Where lines go while the terminal belongs to the guest: a file descriptor, or -1 for standard error.
void setLogFile(int fd);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (level <= logLevel()) logLine(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lodge
