// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "control/protocol.h"

namespace lodge::control {

/// What an attached console's connection carries: a byte for the kind, two for the payload's length (little-endian),
/// and the payload.
enum class FrameKind : char {
  input = 'i',   ///< client to machine: bytes for the guest
  window = 'w',  ///< client to machine: columns and rows, two little-endian bytes each
  output = 'o',  ///< machine to client: bytes from the guest
  skipped =
      's',    ///< machine to client: eight little-endian bytes: so much output was left out, the client was too slow
  end = 'e',  ///< machine to client: the machine ended; an EndRecord as JSON
};

inline constexpr std::size_t kMaxFramePayload = 65535;

struct Frame {
  FrameKind kind;
  std::string payload;
};

/// Cuts a byte stream into frames. Bytes come from the other side of a socket: anything goes.
class FrameReader {
 public:
  void add(std::string_view bytes) { buffer_ += bytes; }
  /// The next whole frame. Kinds that are not known here are given too (the caller ignores them): they are how the
  /// protocol can grow.
  std::optional<Frame> next();

 private:
  std::string buffer_;
};

/// One or more frames for `payload`.
std::string formatFrames(FrameKind kind, std::string_view payload);
std::string formatWindow(WindowSize window);
std::string formatSkipped(std::uint64_t bytes);

std::optional<WindowSize> parseWindow(const Frame& frame);
std::optional<std::uint64_t> parseSkipped(const Frame& frame);

}  // namespace lodge::control
