// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/image_common.h"

namespace lodge::cli {

namespace {

std::atomic<bool> stopped{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void onSignal(int signal) {
  if (stopped.exchange(true)) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
}

}  // namespace

ProgressBar::ProgressBar(const Invocation& invocation, const Program& program)
    : shown_(!invocation.has("quiet") &&
             (invocation.has("progress") || (!program.qemuImg && ::isatty(STDERR_FILENO) == 1))),
      qemu_(program.qemuImg) {
  struct sigaction action {};
  action.sa_handler = onSignal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

ProgressBar::~ProgressBar() {
  if (shown_ && drawn_ >= 0) [[maybe_unused]]
    ssize_t n = ::write(qemu_ ? STDOUT_FILENO : STDERR_FILENO, "\n", 1);
}

bool ProgressBar::interrupted() {
  return stopped.load(std::memory_order_relaxed);
}

image::Progress ProgressBar::callback() {
  return [this](std::uint64_t done, std::uint64_t total) {
    if (shown_) draw(done, total);
    return !interrupted();
  };
}

void ProgressBar::draw(std::uint64_t done, std::uint64_t total) {
  int permille = total == 0 ? 1000 : static_cast<int>(static_cast<double>(done) * 1000 / static_cast<double>(total));
  if (permille / 5 == drawn_) return;
  drawn_ = permille / 5;
  std::string line;
  if (qemu_) {
    line = fmt::format("\r    ({:.2f}/100%)", permille / 10.0);
  } else {
    constexpr int kWidth = 40;
    std::string bar(static_cast<std::size_t>(permille * kWidth / 1000), '#');
    bar.resize(kWidth, ' ');
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    auto rate = static_cast<std::uint64_t>(seconds > 0.2 ? static_cast<double>(done) / seconds : 0);
    line = fmt::format("\r[{}] {:3} %  {:>9}/s ", bar, permille / 10, formatSize(rate));
  }
  [[maybe_unused]] ssize_t n = ::write(qemu_ ? STDOUT_FILENO : STDERR_FILENO, line.data(), line.size());
}

}  // namespace lodge::cli
