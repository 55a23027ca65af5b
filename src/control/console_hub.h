// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "control/protocol.h"
#include "machine/machine.h"

namespace lodge::control {

/// Stands between a machine's first serial port and those who look at it: the terminal or pipes of `lodge run`, and
/// attached clients. Keeps the last output for those who come later. All on the I/O thread except output().
class ConsoleHub : public ConsoleSink {
 public:
  /// How much past output a client is shown when it attaches, in bytes.
  static constexpr std::size_t kRecentSize = 64_KiB;

  /// Somebody who is shown output and may offer input. Must outlive its membership.
  class Member {
   public:
    virtual ~Member() = default;
    virtual void consoleOutput(std::string_view bytes) = 0;
    /// The machine may take input again after input() took less than offered.
    virtual void consoleRoom() = 0;
  };

  explicit ConsoleHub(EventLoop& loop) : loop_(loop) {}

  /// Any thread. Returns at once: bytes are handed on by the I/O thread.
  void output(const char* data, std::size_t length) override;

  /// From here on input reaches this machine, which must outlive the hub's use.
  void connect(Machine& machine);
  void add(Member& member) { members_.push_back(&member); }
  void remove(Member& member) { std::erase(members_, &member); }

  /// Offers bytes to the guest; returns how many were taken. The rest is to be offered again at Member::consoleRoom().
  std::size_t input(std::string_view bytes);

  /// Hands on what the guest wrote up to now; for the machine's end, when no more callbacks of the loop's will come.
  void flush();

  /// The last kRecentSize bytes that members were given.
  std::string recent() const;

  /// The window of the terminal that was last looked through. A serial line cannot be told; a console device that can
  /// be will set onResize.
  void setWindow(WindowSize window);
  std::function<void(WindowSize)> onResize;

 private:
  void roomForInput();
  template <class F>
  void forEachMember(F function);

  EventLoop& loop_;
  Machine* machine_ = nullptr;
  std::vector<Member*> members_;
  std::string recent_;
  WindowSize window_;
  std::mutex mutex_;
  std::string pending_;        ///< under mutex_: output that the I/O thread has not seen
  std::uint64_t dropped_ = 0;  ///< under mutex_
};

}  // namespace lodge::control
