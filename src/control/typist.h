// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "display/keyboard_map.h"
#include "display/screen.h"

namespace lodge::control {

/// Presses keys no faster than guests read them. I/O thread.
class Typist {
 public:
  static constexpr std::size_t kMostWaiting = 20'000;
  static constexpr Nanoseconds kPause = 12'000'000;  ///< between two events

  Typist(EventLoop& loop, Display& display)
      : loop_(loop), display_(display), timer_(loop.makeTimer([this] { next(); })) {}

  /// Errors: busy (too much is waiting to be typed).
  Status type(const std::vector<KeyEvent>& events) {
    if (events.size() > kMostWaiting - waiting_.size()) {
      return Error(ErrorKind::busy, "the machine is still typing").withHint("wait until it has typed what it got");
    }
    bool idle = waiting_.empty();
    waiting_.insert(waiting_.end(), events.begin(), events.end());
    if (idle) next();
    return {};
  }

 private:
  void next() {
    if (waiting_.empty()) return;
    display_.key(waiting_.front().keysym, waiting_.front().down);
    waiting_.pop_front();
    if (!waiting_.empty()) timer_->arm(loop_.clock().now() + kPause);
  }

  EventLoop& loop_;
  Display& display_;
  std::deque<KeyEvent> waiting_;
  std::unique_ptr<Timer> timer_;
};

}  // namespace lodge::control
