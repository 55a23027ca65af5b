// SPDX-License-Identifier: Apache-2.0
#include "cli/foreground.h"

#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

namespace lodge::cli {

Foreground::Foreground(EventLoop& loop, control::ConsoleHub& hub, control::MachineSession& session)
    : hub_(hub),
      session_(session),
      output_(loop, session, STDOUT_FILENO),
      input_(loop, hub, Terminal::isThere() ? [this](char key) { onKey(key); } : std::function<void(char)>()) {
  hub_.add(output_);
}

Foreground::~Foreground() {
  hub_.remove(output_);
}

Status Foreground::start() {
  if (Terminal::isThere()) {
    auto terminal = Terminal::open();
    if (!terminal) return std::move(terminal).error();
    terminal_ = std::move(*terminal);
    takeTerminal();
    if (::isatty(STDERR_FILENO) == 1) log(LogLevel::info, "Ctrl-] and ? shows the monitor menu");
  }
  input_.start();
  return {};
}

void Foreground::takeTerminal() {
  if (!Terminal::isForeground()) return;
  if (Status raw = terminal_->makeRaw(); !raw) log(LogLevel::warning, "{}", raw.error().message());
  hub_.setWindow(Terminal::window());
}

void Foreground::onSignal(int signal) {
  if (!terminal_) {
    if (signal == SIGTSTP) ::raise(SIGSTOP);
    return;
  }
  if (signal == SIGWINCH) hub_.setWindow(Terminal::window());
  if (signal == SIGTSTP) {
    terminal_->restore();
    ::raise(SIGSTOP);
  }
  if (signal == SIGCONT) {
    takeTerminal();
    input_.resume();
  }
}

void Foreground::say(const std::string& text) {
  if (terminal_ && ::isatty(STDOUT_FILENO) == 1) return output_.consoleOutput(monitorLine(text));
  std::string line = terminal_ ? monitorLine(text) : "lodge: " + text + "\n";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
}

void Foreground::onKey(char key) {
  switch (key) {
    case 'q':
      return session_.quit();
    case 'r':
      say("reset");
      return session_.reset();
    case 'p':
      say("power button pressed");
      return session_.powerButton();
    case 's':
      return say(describeState(session_.describe()));
    default:
      return say(monitorHelp(false));
  }
}

void Foreground::finish(int milliseconds) {
  output_.finish(milliseconds);
  terminal_.reset();
}

std::string describeState(const control::Json& state) {
  auto text = [&](const char* key) { return control::stringField(state, key).value_or("?"); };
  auto number = [&](const char* key) { return control::numberField(state, key).value_or(0); };
  return fmt::format("{}: {} on {}, {} CPU{}, {} of memory, up {}", text("name"), text("state"), text("engine"),
                     number("cpus"), number("cpus") == 1 ? "" : "s", formatSize(number("memory")),
                     formatDuration(number("uptimeSeconds")));
}

}  // namespace lodge::cli
