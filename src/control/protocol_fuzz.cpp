// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "control/console_frames.h"
#include "control/line_reader.h"
#include "control/protocol.h"

/// What a client can send to a machine, and what a machine can send to a client.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge::control;
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  LineReader lines(kMaxLineLength);
  lines.add(bytes);
  while (auto line = lines.next()) {
    auto parsed = parseRequest(*line);
    if (auto* request = std::get_if<Request>(&parsed)) {
      parsed = parseRequest(formatRequest(*request));
    } else {
      auto& bad = std::get<BadRequest>(parsed);
      [[maybe_unused]] auto reply = parseReply(formatError(bad.id, bad.error));
    }
    [[maybe_unused]] auto reply = parseReply(*line);
  }
  FrameReader frames;
  frames.add(bytes);
  while (auto frame = frames.next()) {
    (void)parseWindow(*frame);
    (void)parseSkipped(*frame);
  }
  return 0;
}
