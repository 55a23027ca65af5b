// SPDX-License-Identifier: Apache-2.0
#include "control/console_frames.h"

#include <algorithm>

#include "base/bytes.h"

namespace lodge::control {

namespace {
constexpr std::size_t kHeaderSize = 3;

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  storeLe(bytes, value);
  out.append(bytes, sizeof bytes);
}
}  // namespace

std::optional<Frame> FrameReader::next() {
  if (buffer_.size() < kHeaderSize) return std::nullopt;
  std::size_t length = loadLe<std::uint16_t>(buffer_.data() + 1);
  if (buffer_.size() < kHeaderSize + length) return std::nullopt;
  Frame frame{static_cast<FrameKind>(buffer_[0]), buffer_.substr(kHeaderSize, length)};
  buffer_.erase(0, kHeaderSize + length);
  return frame;
}

std::string formatFrames(FrameKind kind, std::string_view payload) {
  std::string out;
  do {
    std::string_view part = payload.substr(0, kMaxFramePayload);
    out += static_cast<char>(kind);
    append(out, static_cast<std::uint16_t>(part.size()));
    out += part;
    payload.remove_prefix(part.size());
  } while (!payload.empty());
  return out;
}

std::string formatWindow(WindowSize window) {
  std::string payload;
  append(payload, window.columns);
  append(payload, window.rows);
  return formatFrames(FrameKind::window, payload);
}

std::string formatSkipped(std::uint64_t bytes) {
  std::string payload;
  append(payload, bytes);
  return formatFrames(FrameKind::skipped, payload);
}

std::optional<WindowSize> parseWindow(const Frame& frame) {
  if (frame.kind != FrameKind::window || frame.payload.size() != 4) return std::nullopt;
  return WindowSize{loadLe<std::uint16_t>(frame.payload.data()), loadLe<std::uint16_t>(frame.payload.data() + 2)};
}

std::optional<std::uint64_t> parseSkipped(const Frame& frame) {
  if (frame.kind != FrameKind::skipped || frame.payload.size() != 8) return std::nullopt;
  return loadLe<std::uint64_t>(frame.payload.data());
}

}  // namespace lodge::control
