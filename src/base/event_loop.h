// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"

namespace lodge {

/// The machine's I/O thread: epoll over file descriptors, posted functions and timers. One per machine process; whoever
/// calls run() is the I/O thread. All callbacks run there with no lock held.
///   auto loop = EventLoop::create();
///   (*loop)->watch(fd, EPOLLIN, [&](std::uint32_t events) { ... });
///   (*loop)->run();
class EventLoop : public TimerFactory {
 public:
  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop() override;

  const Clock& clock() const override;
  std::unique_ptr<Timer> makeTimer(std::function<void()> callback) override;
  /// The clock shows `now`, and goes on from there: a saved machine's time. Before run(), and before other threads look
  /// at it.
  void setTime(Nanoseconds now);

  /// Calls `callback` with the ready EPOLL* bits. Watching an fd again replaces its events and callback. I/O thread, or
  /// any thread before run().
  Status watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback);
  /// No callback for `fd` starts after this returns on the I/O thread. To be called before the fd is closed.
  void unwatch(int fd);
  /// Runs `function` soon on the I/O thread. Any thread.
  void post(std::function<void()> function);
  /// Serves until stop(). Returns the host's error if epoll itself fails.
  Status run();
  /// Any thread, and signal handlers' threads through post().
  void stop();

 private:
  class LoopTimer;
  class LoopClock;
  struct Watch;
  explicit EventLoop(UniqueFd epoll, UniqueFd wake, UniqueFd timer);
  void wake();
  void rearmLocked();
  void runTimers();
  void runPosted();

  UniqueFd epoll_, wake_, timer_;
  std::unique_ptr<LoopClock> clock_;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  std::mutex watchMutex_;
  std::mutex postMutex_;
  std::vector<std::function<void()>> posted_;
  std::mutex timerMutex_;
  std::multimap<Nanoseconds, LoopTimer*> armed_;
  LoopTimer* running_ = nullptr;
  Nanoseconds programmed_ = 0;
  std::atomic<std::thread::id> runner_{};
  std::atomic<bool> stopping_{false};
};

}  // namespace lodge
