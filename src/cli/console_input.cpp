// SPDX-License-Identifier: Apache-2.0
#include "cli/console_input.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "cli/terminal.h"

namespace lodge::cli {

namespace {
/// Typed or pasted before the guest takes any of it; what goes beyond is dropped.
constexpr std::size_t kMaxTyped = 1_MiB;
}  // namespace

ConsoleInput::ConsoleInput(EventLoop& loop, control::ConsoleHub& hub, std::function<void(char)> onKey)
    : loop_(loop), hub_(hub), onKey_(std::move(onKey)) {
  hub_.add(*this);
}

ConsoleInput::~ConsoleInput() {
  *alive_ = false;
  hub_.remove(*this);
  if (watching_) loop_.unwatch(STDIN_FILENO);
}

void ConsoleInput::start() {
  watch();
}

void ConsoleInput::resume() {
  if (!watching_ && (onKey_ || pending_.empty())) watch();
}

void ConsoleInput::watch() {
  if (ended_) return;
  if (!pollable_) return readSoon();
  // epoll refuses regular files and /dev/null: those can always be read.
  pollable_ = bool(loop_.watch(STDIN_FILENO, EPOLLIN, [this](std::uint32_t) { read(); }));
  watching_ = pollable_;
  if (!pollable_) readSoon();
}

void ConsoleInput::readSoon() {
  loop_.post([this, alive = alive_] {
    if (*alive) read();
  });
}

void ConsoleInput::read() {
  auto stopWatching = [this] {
    if (watching_) loop_.unwatch(STDIN_FILENO);
    watching_ = false;
  };
  // Reading a terminal from the background would stop the process; resume() comes when that is over.
  if (onKey_ && !Terminal::isForeground()) return stopWatching();
  std::array<char, 4096> buffer;
  ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    ended_ = true;
    return stopWatching();
  }
  typed(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
  // A terminal is always read: the monitor's keys must work above all when the guest takes no input.
  if (!offer() && !onKey_) return stopWatching();
  if (!pollable_) readSoon();
}

void ConsoleInput::typed(std::string_view bytes) {
  if (!onKey_) {
    pending_ += bytes;
    return;
  }
  for (MonitorKeys::Event& event : keys_.feed(bytes)) {
    if (event.key != 0) {
      onKey_(event.key);
    } else if (pending_.size() < kMaxTyped) {
      pending_ += event.data;
    }
  }
}

bool ConsoleInput::offer() {
  if (!pending_.empty()) pending_.erase(0, hub_.input(pending_));
  return pending_.empty();
}

void ConsoleInput::consoleRoom() {
  if (!pending_.empty() && offer() && !watching_) watch();
}

}  // namespace lodge::cli
