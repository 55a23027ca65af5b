// SPDX-License-Identifier: Apache-2.0
#include "control/console_hub.h"

#include <algorithm>

#include "base/log.h"

namespace lodge::control {

namespace {
/// The I/O thread empties the queue within microseconds, and whoever cannot follow stops the guest long before this
/// (see ConsoleOutput). It is the last line against a guest that fills the host's memory.
constexpr std::size_t kMaxPending = 16_MiB;
}  // namespace

void ConsoleHub::output(const char* data, std::size_t length) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = pending_.empty() && dropped_ == 0;
    std::size_t taken = std::min(length, kMaxPending - std::min(kMaxPending, pending_.size()));
    pending_.append(data, taken);
    dropped_ += length - taken;
  }
  if (first) loop_.post([this] { flush(); });
}

void ConsoleHub::connect(Machine& machine) {
  machine_ = &machine;
  machine.onConsoleRoom([this] { loop_.post([this] { roomForInput(); }); });
}

std::size_t ConsoleHub::input(std::string_view bytes) {
  if (!machine_) return 0;
  return std::min(bytes.size(), machine_->consoleInput(bytes.data(), bytes.size()));
}

/// Members may leave or join while they are being called.
template <class F>
void ConsoleHub::forEachMember(F function) {
  for (Member* member : std::vector<Member*>(members_)) {
    if (std::find(members_.begin(), members_.end(), member) != members_.end()) function(*member);
  }
}

void ConsoleHub::flush() {
  std::string bytes;
  std::uint64_t dropped = 0;
  {
    std::lock_guard lock(mutex_);
    bytes.swap(pending_);
    dropped = std::exchange(dropped_, 0);
  }
  if (dropped != 0)
    log(LogLevel::warning, "the console lost {} bytes: the guest writes faster than this host reads", dropped);
  if (bytes.empty()) return;
  recent_ += bytes;
  if (recent_.size() > 2 * kRecentSize) recent_.erase(0, recent_.size() - kRecentSize);
  forEachMember([&](Member& member) { member.consoleOutput(bytes); });
}

void ConsoleHub::roomForInput() {
  forEachMember([](Member& member) { member.consoleRoom(); });
}

std::string ConsoleHub::recent() const {
  return recent_.size() <= kRecentSize ? recent_ : recent_.substr(recent_.size() - kRecentSize);
}

void ConsoleHub::setWindow(WindowSize window) {
  if (window == WindowSize{} || window == window_) return;
  window_ = window;
  if (onResize) onResize(window);
}

}  // namespace lodge::control
