// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "display/clipboard.h"
#include "display/cursor.h"

namespace lodge {

/// A picture: `width` * `height` pixels, each 0x00rrggbb, row by row from the top.
struct Screen {
  unsigned width = 0, height = 0;
  std::vector<std::uint32_t> pixels;

  void resize(unsigned w, unsigned h) {
    width = w;
    height = h;
    pixels.assign(std::size_t{w} * h, 0);
  }
  std::uint32_t* row(unsigned y) { return pixels.data() + std::size_t{y} * width; }
  const std::uint32_t* row(unsigned y) const { return pixels.data() + std::size_t{y} * width; }
  bool operator==(const Screen&) const = default;
};

/// Something with a picture, and a keyboard and a mouse before it. On the I/O thread.
class Display {
 public:
  virtual ~Display() = default;
  /// Brings screen() up to date. False: nothing has changed since the last call.
  virtual bool refresh() = 0;
  virtual const Screen& screen() const = 0;
  /// A key by its X keysym went down or up.
  virtual void key(std::uint32_t keysym, bool down) = 0;
  /// The pointer is at (x, y) of the screen; buttons: 1 left, 2 middle, 4 right, 8 wheel up, 16 wheel down.
  virtual void pointer(unsigned x, unsigned y, unsigned buttons) = 0;
  /// The guest's pointer, which is not in screen(); null: it draws it itself, or has none.
  virtual const Cursor* cursor() const { return nullptr; }

  enum class SizeAnswer : std::uint8_t {
    asked,     ///< the guest was told; it takes the size when and if it likes
    never,     ///< it sets its size itself
    tooLarge,  ///< too large or too small
  };
  /// Somebody before the screen would like it to have this size, in pixels.
  virtual SizeAnswer requestSize(unsigned /*width*/, unsigned /*height*/) { return SizeAnswer::never; }

  /// What is copied and pasted beside the screen.
  Clipboard& clipboard() { return clipboard_; }

 private:
  Clipboard clipboard_;
};

/// The picture as a PNG file (RFC 2083), 8 bits a channel.
std::string encodePng(const Screen& screen);

}  // namespace lodge
