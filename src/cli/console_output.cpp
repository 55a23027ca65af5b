// SPDX-License-Identifier: Apache-2.0
#include "cli/console_output.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "base/log.h"

namespace lodge::cli {

namespace {
constexpr std::size_t kHoldAt = 4_MiB, kReleaseAt = 1_MiB;

/// One write, waiting if need be. False: the descriptor takes no more, ever.
bool writePart(int fd, std::string_view& bytes) {
  ssize_t n = ::write(fd, bytes.data(), bytes.size());
  if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
  if (n >= 0 || errno == EINTR) return true;
  if (errno != EAGAIN) return false;
  // Another program that shares the descriptor made it non-blocking.
  pollfd entry{fd, POLLOUT, 0};
  ::poll(&entry, 1, -1);
  return true;
}
}  // namespace

/// Shared with the thread, which may outlive everything in a write that never returns.
struct ConsoleOutput::Queue {
  int fd = -1;
  std::mutex mutex;
  std::condition_variable changed;
  std::string waiting;
  std::size_t inWrite = 0;
  bool held = false, closing = false, done = false, broken = false;
  std::function<void()> release;

  std::size_t sizeLocked() const { return waiting.size() + inWrite; }
};

ConsoleOutput::ConsoleOutput(EventLoop& loop, control::MachineSession& session, int fd)
    : session_(session), queue_(std::make_shared<Queue>()) {
  queue_->fd = fd;
  queue_->release = [&loop, &session] { loop.post([&session] { session.holdForConsole(false); }); };
  std::thread(writeAll, queue_).detach();
}

ConsoleOutput::~ConsoleOutput() {
  finish(0);
}

void ConsoleOutput::consoleOutput(std::string_view bytes) {
  bool hold = false;
  {
    std::lock_guard lock(queue_->mutex);
    if (queue_->broken) return;
    queue_->waiting += bytes;
    hold = queue_->sizeLocked() > kHoldAt;
    if (hold) queue_->held = true;
  }
  queue_->changed.notify_all();
  if (hold) session_.holdForConsole(true);
}

void ConsoleOutput::writeAll(const std::shared_ptr<Queue>& queue) {
  std::unique_lock lock(queue->mutex);
  std::string bytes;
  for (;;) {
    queue->changed.wait(lock, [&] { return queue->closing || !queue->waiting.empty(); });
    if (queue->waiting.empty()) break;
    bytes.clear();
    bytes.swap(queue->waiting);
    std::string_view rest = bytes;
    while (!rest.empty() && !queue->broken) {
      queue->inWrite = rest.size();
      lock.unlock();
      // Small steps, so that a slow reader's progress is seen.
      std::string_view part = rest.substr(0, 64_KiB);
      std::size_t before = part.size();
      bool good = writePart(queue->fd, part);
      int error = errno;
      rest.remove_prefix(before - part.size());
      if (!good)
        log(LogLevel::warning, "the console's output cannot be written and is dropped: {}",
            std::generic_category().message(error));
      lock.lock();
      queue->broken = !good;
      queue->inWrite = rest.size();
      if (queue->held && (queue->broken || queue->sizeLocked() < kReleaseAt)) {
        queue->held = false;
        queue->release();
      }
    }
    queue->inWrite = 0;
    if (queue->broken) queue->waiting.clear();
    queue->changed.notify_all();
  }
  queue->done = true;
  queue->changed.notify_all();
}

void ConsoleOutput::finish(int milliseconds) {
  sigset_t impatience;
  ::sigemptyset(&impatience);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&impatience, signal);
  constexpr timespec kNow = {0, 0};
  constexpr int kStep = 20;
  std::unique_lock lock(queue_->mutex);
  queue_->closing = true;
  queue_->release = [] {};
  queue_->changed.notify_all();
  for (int waited = 0; !queue_->done && (milliseconds < 0 || waited <= milliseconds); waited += kStep) {
    queue_->changed.wait_for(lock, std::chrono::milliseconds(kStep), [&] { return queue_->done; });
    if (::sigtimedwait(&impatience, nullptr, &kNow) > 0) return;
  }
}

}  // namespace lodge::cli
