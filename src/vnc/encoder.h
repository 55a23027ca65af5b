// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <zlib.h>

#include <cstdint>
#include <memory>
#include <string>

#include "display/screen.h"
#include "vnc/pixel_format.h"

namespace lodge::vnc {

struct Rectangle {
  unsigned x, y, width, height;
};

enum class Encoding : std::int32_t { raw = 0, tight = 7, zrle = 16 };

/// Turns parts of the screen into rectangles of a FramebufferUpdate (RFC 6143, 7.7; Tight as the RFB community's
/// description has it). One a client: its zlib streams go on from update to update.
class Encoder {
 public:
  /// No rectangle may be wider (Tight's bound) or higher.
  static constexpr unsigned kMaxWidth = 2048, kMaxHeight = 64;

  Encoder();
  void encode(std::string& out, const Screen& screen, const Rectangle& r, Encoding how, const PixelFormat& format);

 private:
  /// A zlib stream that is flushed after each piece.
  class Deflater {
   public:
    Deflater();
    ~Deflater() { ::deflateEnd(&stream_); }
    Deflater(const Deflater&) = delete;
    Deflater& operator=(const Deflater&) = delete;
    std::string pack(const std::string& data);

   private:
    z_stream stream_{};
  };

  void zrle(std::string& out, const Screen& screen, const Rectangle& r, const PixelFormat& format);
  void tight(std::string& out, const Screen& screen, const Rectangle& r, const PixelFormat& format);

  std::unique_ptr<Deflater> zrle_, tight_;
};

}  // namespace lodge::vnc
