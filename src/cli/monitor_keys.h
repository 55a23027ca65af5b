// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lodge::cli {

/// The key that opens the monitor menu: Ctrl-].
inline constexpr char kMonitorKey = 0x1d;

/// Takes the monitor's keys out of what is typed: Ctrl-] and the key after it. Ctrl-] twice is one for the guest.
class MonitorKeys {
 public:
  /// Either bytes for the guest or a menu key.
  struct Event {
    std::string data{};
    char key = 0;
    bool operator==(const Event&) const = default;
  };

  std::vector<Event> feed(std::string_view typed);

 private:
  bool afterPrefix_ = false;
};

/// A message of Lodge's own among the guest's output, on a terminal in raw mode.
std::string monitorLine(std::string_view text);

/// The menu's keys, for '?' and for the help of the verbs: `attached` for `lodge console`.
std::vector<std::pair<std::string, std::string>> monitorMenu(bool attached);
std::string monitorHelp(bool attached);

}  // namespace lodge::cli
