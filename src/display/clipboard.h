// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace lodge {

/// Text that VNC clients and `lodge clipboard` share: UTF-8, lines that end with '\n'. I/O thread.
class Clipboard {
 public:
  static constexpr std::size_t kMostBytes = 256 << 10;

  const std::string& text() const { return text_; }
  /// Counts the changes; 0: there has never been a text.
  std::uint64_t version() const { return version_; }
  /// Of a longer text nothing is taken. False: it is too long.
  bool set(std::string text) {
    if (text.size() > kMostBytes) return false;
    if (text == text_) return true;
    text_ = std::move(text);
    ++version_;
    if (changed_) changed_();
    return true;
  }
  /// `changed` is called after each change; null: nobody is.
  void onChange(std::function<void()> changed) { changed_ = std::move(changed); }

 private:
  std::string text_;
  std::uint64_t version_ = 0;
  std::function<void()> changed_;
};

}  // namespace lodge
