// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "net/address.h"
#include "net/forward.h"
#include "net/offload.h"
#include "net/virtio_header.h"

namespace {

using namespace lodge;

void cut(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  std::size_t frames = 0, bytes = 0;
  bool done = finishOffload(frame, offload, [&](std::span<const std::uint8_t> f) {
    ++frames;
    bytes += f.size();
    if (f.size() > frame.size()) std::abort();
  });
  if (done == (frames == 0)) std::abort();
  // What one frame becomes is bounded: headers of at most 150 bytes, before segments of at least kLeastSegment.
  if (bytes > frame.size() * (1 + 150 / kLeastSegment) + 300) std::abort();
  std::vector<std::uint8_t> whole(frame.begin(), frame.end());
  (void)finishWhole(whole, offload);
  if (whole.size() != frame.size()) std::abort();
}

}  // namespace

/// Frames one after the other, each behind two bytes of length and a virtio header: cut, and joined in their order.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::span<const std::uint8_t> bytes(data, size);
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parseForward(text);
  (void)macFrom(text);
  if (auto address = ipFrom(text); address && ipFrom(toText(*address)) != address) std::abort();
  std::size_t in = 0, out = 0;
  for (bool verify : {true, false}) {
    SegmentJoiner joiner([&](std::span<const std::uint8_t> frame, const FrameOffload& offload) {
      if (frame.size() > 65536 + 64) std::abort();
      out += frame.size();
      cut(frame, offload);
    });
    for (auto left = bytes; left.size() > 2 + kVirtioHeaderSize;) {
      std::size_t length = std::min<std::size_t>(left[0] << 8 | left[1], left.size() - 2 - kVirtioHeaderSize);
      auto header = left.subspan(2, kVirtioHeaderSize), frame = left.subspan(2 + kVirtioHeaderSize, length);
      left = left.subspan(2 + kVirtioHeaderSize + length);
      in += frame.size();
      if (verify) {
        joiner.add(frame, fromHeader(header));
        cut(frame, fromHeader(header));
      } else {
        joiner.add(frame);
      }
    }
    joiner.flush();
    if (joiner.holds()) std::abort();
  }
  if (out > in) std::abort();  // joined frames lose headers, and gain nothing
  return 0;
}
