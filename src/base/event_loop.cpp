// SPDX-License-Identifier: Apache-2.0
#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>

namespace lodge {

namespace {
Nanoseconds monotonicNow() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanoseconds>(t.tv_sec) * kNanosecondsPerSecond + t.tv_nsec;
}
}  // namespace

class EventLoop::LoopClock : public Clock {
 public:
  Nanoseconds now() const override { return monotonicNow() - start_; }
  Nanoseconds toHost(Nanoseconds t) const { return t + start_; }
  void set(Nanoseconds now) { start_ = monotonicNow() - now; }

 private:
  Nanoseconds start_ = monotonicNow();
};

struct EventLoop::Watch {
  int fd;
  std::function<void(std::uint32_t)> callback;
  std::atomic<bool> dead{false};
};

class EventLoop::LoopTimer : public Timer {
 public:
  LoopTimer(EventLoop& loop, std::function<void()> callback) : loop_(loop), callback_(std::move(callback)) {}
  ~LoopTimer() override {
    std::unique_lock lock(loop_.timerMutex_);
    removeLocked();
    while (loop_.running_ == this && loop_.runner_.load() != std::this_thread::get_id()) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
  }
  void arm(Nanoseconds deadline) override {
    std::lock_guard lock(loop_.timerMutex_);
    removeLocked();
    position_ = loop_.armed_.emplace(deadline, this);
    isArmed_ = true;
    loop_.rearmLocked();
  }
  void cancel() override {
    std::lock_guard lock(loop_.timerMutex_);
    removeLocked();
  }
  void removeLocked() {
    if (isArmed_) loop_.armed_.erase(position_);
    isArmed_ = false;
  }
  void firedLocked() { isArmed_ = false; }
  void call() { callback_(); }

 private:
  EventLoop& loop_;
  std::function<void()> callback_;
  std::multimap<Nanoseconds, LoopTimer*>::iterator position_;
  bool isArmed_ = false;
};

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake, UniqueFd timer)
    : epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      timer_(std::move(timer)),
      clock_(std::make_unique<LoopClock>()) {}

EventLoop::~EventLoop() = default;

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return Error::fromErrno(errno, "epoll_create1");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return Error::fromErrno(errno, "eventfd");
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return Error::fromErrno(errno, "timerfd_create");
  for (int fd : {wake.get(), timer.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return Error::fromErrno(errno, "epoll_ctl");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake), std::move(timer)));
}

const Clock& EventLoop::clock() const {
  return *clock_;
}

std::unique_ptr<Timer> EventLoop::makeTimer(std::function<void()> callback) {
  return std::make_unique<LoopTimer>(*this, std::move(callback));
}

Status EventLoop::watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback) {
  auto entry = std::make_shared<Watch>();
  entry->fd = fd;
  entry->callback = std::move(callback);
  std::lock_guard lock(watchMutex_);
  auto& slot = watches_[fd];
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  int operation = slot ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  bool done = ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
  // The number may have been closed and given out again behind our back (by a library that owns the descriptor).
  if (!done && slot && errno == ENOENT) done = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  if (!done) {
    int error = errno;
    if (!slot) watches_.erase(fd);
    return Error::fromErrno(error, "watch a file descriptor");
  }
  if (slot) slot->dead = true;
  slot = std::move(entry);
  return {};
}

void EventLoop::unwatch(int fd) {
  std::lock_guard lock(watchMutex_);
  auto it = watches_.find(fd);
  if (it == watches_.end()) return;
  it->second->dead = true;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watches_.erase(it);
}

void EventLoop::wake() {
  std::uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::post(std::function<void()> function) {
  {
    std::lock_guard lock(postMutex_);
    posted_.push_back(std::move(function));
  }
  // The I/O thread looks before it waits.
  if (runner_.load(std::memory_order_relaxed) != std::this_thread::get_id()) wake();
}

void EventLoop::stop() {
  stopping_ = true;
  wake();
}

void EventLoop::rearmLocked() {
  Nanoseconds next = armed_.empty() ? 0 : std::max<Nanoseconds>(1, clock_->toHost(armed_.begin()->first));
  // An earlier programmed deadline only causes one empty wake-up; reprogram only to move it forward.
  if (next == 0 || (programmed_ != 0 && programmed_ <= next)) return;
  programmed_ = next;
  itimerspec spec{};
  spec.it_value.tv_sec = next / kNanosecondsPerSecond;
  spec.it_value.tv_nsec = next % kNanosecondsPerSecond;
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void EventLoop::setTime(Nanoseconds now) {
  std::lock_guard lock(timerMutex_);
  clock_->set(now);
  programmed_ = 0;
  rearmLocked();
}

void EventLoop::runTimers() {
  std::unique_lock lock(timerMutex_);
  programmed_ = 0;
  while (!armed_.empty() && armed_.begin()->first <= clock_->now()) {
    LoopTimer* timer = armed_.begin()->second;
    armed_.erase(armed_.begin());
    timer->firedLocked();
    running_ = timer;
    lock.unlock();
    timer->call();
    lock.lock();
    running_ = nullptr;
  }
  rearmLocked();
}

void EventLoop::runPosted() {
  std::vector<std::function<void()>> work;
  {
    std::lock_guard lock(postMutex_);
    work.swap(posted_);
  }
  for (auto& function : work) function();
}

Status EventLoop::run() {
  runner_ = std::this_thread::get_id();
  std::array<epoll_event, 32> events{};
  auto isPosted = [this] {
    std::lock_guard lock(postMutex_);
    return !posted_.empty();
  };
  while (!stopping_) {
    int patience = isPosted() ? 0 : -1;
    int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), patience);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::fromErrno(errno, "epoll_wait");
    for (int i = 0; i < count; ++i) {
      int fd = events[static_cast<std::size_t>(i)].data.fd;
      std::uint64_t drained = 0;
      if (fd == wake_.get()) {
        [[maybe_unused]] ssize_t n = ::read(fd, &drained, sizeof drained);
      } else if (fd == timer_.get()) {
        [[maybe_unused]] ssize_t n = ::read(fd, &drained, sizeof drained);
        runTimers();
      } else {
        std::shared_ptr<Watch> watch;
        {
          std::lock_guard lock(watchMutex_);
          if (auto it = watches_.find(fd); it != watches_.end()) watch = it->second;
        }
        if (watch && !watch->dead) watch->callback(events[static_cast<std::size_t>(i)].events);
      }
    }
    runPosted();
  }
  return {};
}

}  // namespace lodge
