// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"

namespace lodge {

/// A clock for tests that moves only when told; timers fire inside advance(), in the order of their deadlines.
class FakeClock : public Clock, public TimerFactory {
 public:
  Nanoseconds now() const override { return now_; }
  const Clock& clock() const override { return *this; }
  std::unique_ptr<Timer> makeTimer(std::function<void()> callback) override {
    return std::make_unique<FakeTimer>(*this, std::move(callback));
  }

  void advance(Nanoseconds span) {
    Nanoseconds end = now_ + span;
    while (FakeTimer* next = earliest(end)) {
      now_ = std::max(now_, *next->deadline);
      next->deadline.reset();
      next->callback();
    }
    now_ = end;
  }

 private:
  struct FakeTimer : Timer {
    FakeTimer(FakeClock& c, std::function<void()> f) : owner(c), callback(std::move(f)) {
      owner.timers_.push_back(this);
    }
    ~FakeTimer() override { std::erase(owner.timers_, this); }
    void arm(Nanoseconds at) override { deadline = at; }
    void cancel() override { deadline.reset(); }
    FakeClock& owner;
    std::function<void()> callback;
    std::optional<Nanoseconds> deadline;
  };

  FakeTimer* earliest(Nanoseconds limit) {
    FakeTimer* best = nullptr;
    for (FakeTimer* t : timers_) {
      if (t->deadline && *t->deadline <= limit && (!best || *t->deadline < *best->deadline)) best = t;
    }
    return best;
  }

  Nanoseconds now_ = 0;
  std::vector<FakeTimer*> timers_;
};

}  // namespace lodge
