// SPDX-License-Identifier: Apache-2.0
#include "cli/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace lodge::cli {

namespace {

constexpr int kTty = STDIN_FILENO;
constexpr std::array kCrashSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGQUIT};

// What a signal handler needs, and so in one place for the process. `rawNow` says whether `saved` is to be put back.
termios saved;
termios raw;
std::atomic<bool> rawNow{false};

void putBack() {
  if (rawNow.exchange(false)) ::tcsetattr(kTty, TCSANOW, &saved);
}

/// The process is lost, but its terminal need not be.
void onCrash(int signal) {
  putBack();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void handleCrashes() {
  for (int signal : kCrashSignals) {
    struct sigaction old {};
    // Somebody (an engine, a sanitizer) who was here first knows better.
    if (::sigaction(signal, nullptr, &old) != 0 || old.sa_handler != SIG_DFL) continue;
    struct sigaction action {};
    action.sa_handler = onCrash;
    action.sa_flags = SA_NODEFER | SA_RESETHAND | SA_ONSTACK;
    ::sigaction(signal, &action, nullptr);
  }
}

bool sameMode(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_lflag == b.c_lflag && a.c_cflag == b.c_cflag;
}

/// The guard's whole life, in a child of a process that may have threads: only async-signal-safe calls.
/// It reads 'k' when all is well. At the end of the stream without it the parent was killed, and if the terminal is
/// still just as the parent had made it (no shell has taken it over since), its mode is put back.
[[noreturn]] void guard(int pipe) {
  constexpr unsigned kGuardFd = 3;
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTOU, SIGPIPE}) ::signal(signal, SIG_IGN);
  ::dup2(pipe, static_cast<int>(kGuardFd));
  ::syscall(SYS_close_range, kGuardFd + 1, ~0u, 0);
  ::close(STDOUT_FILENO);
  ::close(STDERR_FILENO);
  ::prctl(PR_SET_NAME, "lodge-tty");
  char byte = 0;
  ssize_t n = 0;
  do {
    n = ::read(static_cast<int>(kGuardFd), &byte, 1);
  } while (n < 0 && errno == EINTR);
  termios now{};
  if (n != 1 && ::tcgetattr(kTty, &now) == 0 && sameMode(now, raw)) ::tcsetattr(kTty, TCSANOW, &saved);
  ::_exit(0);
}

}  // namespace

bool Terminal::isThere() {
  return ::isatty(kTty) == 1;
}

bool Terminal::isForeground() {
  return ::tcgetpgrp(kTty) == ::getpgrp();
}

Result<std::unique_ptr<Terminal>> Terminal::open() {
  if (::tcgetattr(kTty, &saved) != 0) return Error::fromErrno(errno, "read the terminal's mode");
  raw = saved;
  ::cfmakeraw(&raw);
  handleCrashes();
  std::unique_ptr<Terminal> terminal(new Terminal);
  terminal->startGuard();
  return terminal;
}

void Terminal::startGuard() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  guard_ = ::fork();
  if (guard_ == 0) {
    ::close(ends[1]);
    guard(ends[0]);
  }
  ::close(ends[0]);
  guardPipe_ = ends[1];
}

Terminal::~Terminal() {
  restore();
  if (guardPipe_ >= 0) {
    [[maybe_unused]] ssize_t n = ::write(guardPipe_, "k", 1);
    ::close(guardPipe_);
  }
  if (guard_ > 0) ::waitpid(guard_, nullptr, 0);
}

Status Terminal::makeRaw() {
  if (!rawNow && ::tcgetattr(kTty, &saved) != 0) return Error::fromErrno(errno, "read the terminal's mode");
  rawNow = true;
  int done = 0;
  do {
    done = ::tcsetattr(kTty, TCSADRAIN, &raw);
  } while (done != 0 && errno == EINTR);
  if (done != 0) return Error::fromErrno(errno, "put the terminal into raw mode");
  return {};
}

void Terminal::restore() {
  putBack();
}

control::WindowSize Terminal::window() {
  winsize size{};
  if (::ioctl(kTty, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_col, size.ws_row};
}

}  // namespace lodge::cli
