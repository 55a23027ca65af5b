// SPDX-License-Identifier: Apache-2.0
#include "cli/console_client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "cli/foreground.h"
#include "cli/layout.h"
#include "cli/signals.h"
#include "control/control_client.h"

namespace lodge::cli {

namespace {
/// Typed ahead of a guest that takes no input; a pipe is not read further.
constexpr std::size_t kMaxAhead = 64_KiB;
}  // namespace

Status ConsoleClient::attach() {
  auto client = control::ControlClient::connect(folder_, name_);
  if (!client) return std::move(client).error();
  auto attached = client->call({.kind = control::RequestKind::consoleAttach, .window = Terminal::window()});
  if (!attached) return std::move(attached).error();
  std::string rest;
  connection_ = client->takeConnection(rest);
  frames_.add(rest);
  return {};
}

Result<std::optional<control::EndRecord>> ConsoleClient::run() {
  blockSignals();
  auto signals = openSignalFd();
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);
  if (Status attached = attach(); !attached) return std::move(attached).error();
  if (Terminal::isThere()) {
    auto terminal = Terminal::open();
    if (!terminal) return std::move(terminal).error();
    terminal_ = std::move(*terminal);
    say("attached to " + name_ + "; Ctrl-] and d detaches, Ctrl-] and ? shows the menu");
    if (Terminal::isForeground()) {
      if (Status raw = terminal_->makeRaw(); !raw) return std::move(raw).error();
    }
  }
  if (Status served = serve(); !served) return std::move(served).error();
  return end_;
}

Status ConsoleClient::serve() {
  received();
  while (!finished_) {
    bool reads = !inputEnded_ && (terminal_ ? Terminal::isForeground() : out_.size() < kMaxAhead);
    std::array<pollfd, 3> entries = {
        {{connection_.get(), static_cast<short>(out_.empty() ? POLLIN : POLLIN | POLLOUT), 0},
         {signals_.get(), POLLIN, 0},
         {reads ? STDIN_FILENO : -1, POLLIN, 0}}};
    // In the background the terminal's state is looked at again from time to time.
    int ready = ::poll(entries.data(), entries.size(), terminal_ && !reads && !inputEnded_ ? 200 : -1);
    if (ready < 0 && errno != EINTR) return Error::fromErrno(errno, "poll");
    if (ready <= 0) continue;
    if (entries[1].revents != 0) {
      while (int signal = readSignal(signals_.get())) onSignal(signal);
    }
    if (entries[0].revents & POLLOUT) send();
    if (entries[0].revents & (POLLIN | POLLHUP | POLLERR)) {
      std::array<char, 65536> buffer;
      ssize_t n = ::recv(connection_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (n <= 0) finished_ = true;
      if (n > 0) frames_.add(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
      received();
    }
    if (entries[2].revents != 0) typed();
  }
  return {};
}

void ConsoleClient::typed() {
  std::array<char, 4096> buffer;
  ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    inputEnded_ = true;
    return;
  }
  std::string_view bytes(buffer.data(), static_cast<std::size_t>(n));
  if (!terminal_) {
    out_ += control::formatFrames(control::FrameKind::input, bytes);
  } else {
    for (MonitorKeys::Event& event : keys_.feed(bytes)) {
      if (event.key != 0) {
        onKey(event.key);
      } else if (out_.size() < kMaxAhead) {
        out_ += control::formatFrames(control::FrameKind::input, event.data);
      }
    }
  }
  send();
}

void ConsoleClient::onKey(char key) {
  switch (key) {
    case 'd':
    case 'q':
      finished_ = true;
      return;
    case 'r':
      return request(control::RequestKind::reset, "reset");
    case 'p':
      return request(control::RequestKind::powerButton, "power button pressed");
    case 's':
      return request(control::RequestKind::state, "");
    default:
      return say(monitorHelp(true));
  }
}

void ConsoleClient::request(control::RequestKind kind, const std::string& done) {
  auto client = control::ControlClient::connect(folder_, name_);
  if (!client) return say(client.error().message());
  auto reply = client->call({.kind = kind});
  if (!reply) return say(reply.error().message());
  say(kind == control::RequestKind::state ? describeState(*reply) : done);
}

void ConsoleClient::onSignal(int signal) {
  switch (signal) {
    case SIGWINCH:
      return sendWindow();
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
      finished_ = true;
      return;
    case SIGTSTP:
      if (terminal_) terminal_->restore();
      ::raise(SIGSTOP);
      return;
    case SIGCONT:
      if (terminal_ && Terminal::isForeground()) [[maybe_unused]]
        Status raw = terminal_->makeRaw();
      return sendWindow();
    default:
      return;
  }
}

void ConsoleClient::sendWindow() {
  control::WindowSize window = Terminal::window();
  if (window == control::WindowSize{}) return;
  out_ += control::formatWindow(window);
  send();
}

void ConsoleClient::send() {
  while (!out_.empty()) {
    ssize_t n = ::send(connection_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;  // full (poll tells when not), or gone (recv tells)
    out_.erase(0, static_cast<std::size_t>(n));
  }
}

void ConsoleClient::received() {
  while (auto frame = frames_.next()) show(*frame);
}

void ConsoleClient::show(const control::Frame& frame) {
  if (frame.kind == control::FrameKind::output && !print(frame.payload)) finished_ = true;
  if (auto skipped = control::parseSkipped(frame))
    say(fmt::format("{} bytes of output were left out: this reader is too slow", *skipped));
  if (frame.kind == control::FrameKind::end) {
    end_ = control::EndRecord::fromJson(control::parseJson(frame.payload));
    finished_ = true;
  }
}

void ConsoleClient::say(const std::string& text) {
  std::string line = terminal_ ? monitorLine(text) : "lodge: " + text + "\n";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace lodge::cli
