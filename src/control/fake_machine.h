// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "base/text.h"
#include "machine/machine.h"

namespace lodge::control {

/// A machine without a guest, for the tests of what is around machines: a thread that echoes what is typed on its
/// console and obeys lines:
///   poweroff | crash | exit N | flood N (N numbered lines) | deaf (ignore the power button) | stuck (ignore quit too)
///   | nap (take no input for 300 ms) | quiet (stop echoing) | abort (crash the process)
class FakeMachine : public Machine {
 public:
  FakeMachine(EventLoop& loop, const MachineConfig& config, ConsoleSink& console)
      : loop_(loop), config_(config), console_(console) {}
  ~FakeMachine() override {
    finish(MachineEnd::killed, 0);
    if (thread_.joinable()) thread_.join();
  }

  static Result<std::unique_ptr<Machine>> create(EventLoop& loop, const MachineConfig& config, ConsoleSink& console) {
    if (Status good = validate(config); !good) return std::move(good).error();
    if (auto kernel = readFile(config.kernel, 1_GiB); !kernel) {
      return std::move(kernel).error().context("kernel").withHint("--kernel takes the path of a kernel image");
    }
    return std::unique_ptr<Machine>(std::make_unique<FakeMachine>(loop, config, console));
  }
  static Status validate(const MachineConfig& config) {
    if (config.cpus == 0)
      return Error(ErrorKind::invalidArgument, "a machine needs a CPU").withHint("use --cpus 1 to 16");
    return {};
  }

  void start() override {
    state_ = State::running;
    thread_ = std::thread([this] { run(); });
  }
  std::size_t consoleInput(const char* data, std::size_t length) override {
    std::lock_guard lock(mutex_);
    std::size_t taken = std::min(length, kFifo - std::min(kFifo, input_.size()));
    input_.append(data, taken);
    refused_ = taken < length;
    changed_.notify_all();
    return taken;
  }
  void onConsoleRoom(std::function<void()> callback) override { room_ = std::move(callback); }
  void resizeConsole(std::uint16_t, std::uint16_t) override {}
  void powerButton() override {
    std::lock_guard lock(mutex_);
    ++powerButtons;
    if (!deaf_) finishLocked(MachineEnd::poweredOff, 0);
  }
  void reset() override { say("[reset]\r\n"); }
  void pause() override { setPaused(true); }
  void resume() override { setPaused(false); }
  void quit() override {
    std::lock_guard lock(mutex_);
    if (!stuck_) finishLocked(MachineEnd::killed, 0);
  }
  State state() const override { return state_; }
  void onEnd(std::function<void(MachineEnd, int)> callback) override { end_ = std::move(callback); }
  std::string engineName() const override { return "fake"; }
  Status save(const SaveRequest&) override {
    ++saves;
    return {};
  }
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override { return {{"fake.lines", lines_}}; }

  void say(const std::string& text) { console_.output(text.data(), text.size()); }
  void finish(MachineEnd end, int status) {
    std::lock_guard lock(mutex_);
    finishLocked(end, status);
  }
  std::atomic<int> powerButtons{0}, saves{0};
  std::atomic<bool> paused{false};

 private:
  static constexpr std::size_t kFifo = 16;

  void setPaused(bool value) {
    std::lock_guard lock(mutex_);
    if (state_ != State::ended) state_ = value ? State::paused : State::running;
    paused = value;
    changed_.notify_all();
  }
  void finishLocked(MachineEnd end, int status) {
    if (state_ == State::ended) return;
    state_ = State::ended;
    changed_.notify_all();
    if (end_) loop_.post([callback = end_, end, status] { callback(end, status); });
  }

  void run() {
    say("fake guest: " + config_.append + "\r\n");
    std::string line;
    for (std::string bytes = take(); !bytes.empty(); bytes = take()) {
      std::string echo;  // of a line comes when the lines before it have been obeyed
      for (char c : bytes) {
        echo += c;
        if (c != '\r' && c != '\n') {
          line += c;
          continue;
        }
        if (echo_) say(std::exchange(echo, {}));
        ++lines_;
        obey(std::exchange(line, {}));
      }
      if (echo_ && !echo.empty()) say(echo);
    }
  }
  /// What was typed; empty at the end.
  std::string take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return state_ == State::ended || (!paused && !input_.empty()); });
    if (state_ == State::ended) return {};
    std::string bytes = std::exchange(input_, {});
    if (refused_.exchange(false) && room_) room_();
    return bytes;
  }
  void waitWhilePaused() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return state_ == State::ended || !paused; });
  }
  void obey(const std::string& line) {
    if (line == "poweroff") finish(MachineEnd::poweredOff, 0);
    if (line == "crash") finish(MachineEnd::crashed, 0);
    if (line == "deaf" || line == "stuck") deaf_ = true;
    if (line == "stuck") stuck_ = true;
    if (line == "quiet") echo_ = false;
    if (line == "abort") std::abort();
    if (line == "nap") std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (line.starts_with("exit ")) finish(MachineEnd::debugExit, std::stoi(line.substr(5)));
    if (line.starts_with("flood ")) flood(std::stoul(line.substr(6)));
  }
  void flood(unsigned long count) {
    for (unsigned long i = 0; i < count && state_ != State::ended; ++i) {
      say(fmt::format("flood {:08}\n", i));
      waitWhilePaused();
    }
  }

  EventLoop& loop_;
  MachineConfig config_;
  ConsoleSink& console_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string input_;
  std::atomic<State> state_{State::created};
  std::atomic<bool> deaf_{false}, stuck_{false}, echo_{true}, refused_{false};
  std::atomic<std::uint64_t> lines_{0};
  std::function<void()> room_;
  std::function<void(MachineEnd, int)> end_;
};

}  // namespace lodge::control
