// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace lodge::control {

/// Cuts a byte stream into lines of bounded length.
///   reader.add(bytes);
///   while (auto line = reader.next()) { ... }
class LineReader {
 public:
  explicit LineReader(std::size_t maxLength) : maxLength_(maxLength) {}

  void add(std::string_view bytes) { buffer_ += bytes; }

  /// The next whole line without its newline.
  std::optional<std::string> next() {
    std::size_t end = buffer_.find('\n', searched_);
    if (end == std::string::npos) {
      searched_ = buffer_.size();
      return std::nullopt;
    }
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    searched_ = 0;
    return line;
  }

  /// The line being received is longer than allowed: nothing sensible can follow.
  bool tooLong() const { return searched_ > maxLength_; }

  /// What came after the last line taken; for a connection that goes on with something other than lines.
  std::string takeRest() {
    searched_ = 0;
    return std::exchange(buffer_, {});
  }

 private:
  std::size_t maxLength_;
  std::string buffer_;
  std::size_t searched_ = 0;
};

}  // namespace lodge::control
