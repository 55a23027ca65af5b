// SPDX-License-Identifier: Apache-2.0
#include "cli/monitor_keys.h"

#include <utility>

namespace lodge::cli {

std::vector<MonitorKeys::Event> MonitorKeys::feed(std::string_view typed) {
  std::vector<Event> events;
  auto data = [&]() -> std::string& {
    if (events.empty() || events.back().key != 0) events.emplace_back();
    return events.back().data;
  };
  for (char c : typed) {
    if (!afterPrefix_ && c != kMonitorKey) {
      data() += c;
    } else if (!afterPrefix_) {
      afterPrefix_ = true;
    } else {
      afterPrefix_ = false;
      if (c == kMonitorKey) {
        data() += c;
      } else {
        events.push_back({.key = c});
      }
    }
  }
  return events;
}

std::string monitorLine(std::string_view text) {
  return "\r\n[lodge] " + std::string(text) + "\r\n";
}

std::vector<std::pair<std::string, std::string>> monitorMenu(bool attached) {
  std::vector<std::pair<std::string, std::string>> menu;
  if (attached) {
    menu = {{"d", "detach: leave the machine running (q too)"}};
  } else {
    menu = {{"q", "quit: turn the machine off at once"}};
  }
  menu.insert(menu.end(), {{"r", "reset the machine"},
                           {"p", "press the power button"},
                           {"s", "show the machine's state"},
                           {"?", "show this menu"},
                           {"Ctrl-]", "send a Ctrl-] to the guest"}});
  return menu;
}

std::string monitorHelp(bool attached) {
  std::string text = "Ctrl-] and then:";
  for (const auto& [key, what] : monitorMenu(attached))
    text += "\r\n  " + key + std::string(8 - key.size(), ' ') + what;
  return text;
}

}  // namespace lodge::cli
