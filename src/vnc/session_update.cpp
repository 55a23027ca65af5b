// SPDX-License-Identifier: Apache-2.0
// What a client is told of the screen.
#include <algorithm>
#include <cstring>

#include "vnc/session.h"
#include "vnc/wire.h"

namespace lodge::vnc {

namespace {
constexpr unsigned kTile = 64;

void putRectangle(std::string& out, unsigned x, unsigned y, unsigned width, unsigned height, Pseudo kind) {
  for (unsigned value : {x, y, width, height}) put(out, value, 2);
  put(out, static_cast<std::uint32_t>(kind), 4);
}

/// The head of a FramebufferUpdate.
void beginUpdate(std::string& out, std::size_t rectangles) {
  put(out, 0, 2);
  put(out, static_cast<std::uint32_t>(rectangles), 2);
}
}  // namespace

/// The screen's size, and why it is told.
void Session::sendSize(const Screen& screen, SizeNote note) {
  beginUpdate(out_, 1);
  if (takes_.screens) {
    putRectangle(out_, static_cast<unsigned>(note.reason), static_cast<unsigned>(note.status), screen.width,
                 screen.height, Pseudo::extendedDesktopSize);
    put(out_, 1u << 24, 4);  // one screen
    put(out_, 0, 4);         // its number
    put(out_, 0, 4);         // its place
    put(out_, screen.width, 2);
    put(out_, screen.height, 2);
    put(out_, 0, 4);  // flags
  } else {
    putRectangle(out_, 0, 0, screen.width, screen.height, Pseudo::desktopSize);
  }
  if (screen.width != shown_.width || screen.height != shown_.height) {
    shown_.resize(screen.width, screen.height);
    fresh_ = true;
  }
  wanted_.reset();
}

void Session::sendCursor(const Cursor::Shape& shape) {
  beginUpdate(out_, 1);
  putRectangle(out_, shape.hotX, shape.hotY, shape.width, shape.height,
               takes_.alphaCursor ? Pseudo::cursorWithAlpha : Pseudo::cursor);
  if (takes_.alphaCursor) {
    put(out_, static_cast<std::uint32_t>(Encoding::raw), 4);
    for (std::uint32_t pixel : shape.pixels) put(out_, pixel << 8 | pixel >> 24, 4);  // red, green, blue, alpha
  } else {
    for (std::uint32_t pixel : shape.pixels) format_.append(out_, pixel & 0xffffff);
    for (unsigned y = 0; y < shape.height; ++y) {
      for (unsigned x = 0; x < shape.width; x += 8) {
        unsigned mask = 0;
        for (unsigned bit = 0; bit < 8 && x + bit < shape.width; ++bit) {
          mask |= (shape.pixels[std::size_t{y} * shape.width + x + bit] >> 31) << (7 - bit);
        }
        put(out_, mask, 1);
      }
    }
  }
  shownCursor_ = shape;
  wanted_.reset();
}

/// The picture as this client gets it: with the guest's pointer in it, if the client does not draw that itself.
const Screen& Session::picture() {
  const Cursor* cursor = display_.cursor();
  if (!cursor || takes_.anyCursor() || cursor->shape.width == 0) return display_.screen();
  composed_ = display_.screen();
  drawCursor(composed_, *cursor);
  return composed_;
}

/// Sends what is not the picture. True: something was sent.
bool Session::updateBesides(const Screen& screen) {
  bool resized = screen.width != shown_.width || screen.height != shown_.height;
  if (sizeNote_ || (resized && (takes_.screens || takes_.size))) {
    SizeNote note = sizeNote_.value_or(SizeNote{SizeReason::server, SizeStatus::done});
    if (resized && note.status == SizeStatus::forwarded) note.status = SizeStatus::done;  // the guest was quick
    sendSize(screen, note);
    sizeNote_.reset();
    return true;
  }
  // A guest without a pointer of its own leaves the client's alone, unless it has shown one before.
  const Cursor* cursor = display_.cursor();
  if (!takes_.anyCursor() || (!cursor && !shownCursor_)) return false;
  const Cursor::Shape none;
  const Cursor::Shape& shape = cursor ? cursor->shape : none;
  if (shownCursor_ == shape) return false;
  sendCursor(shape);
  return true;
}

/// Tiles that differ from what the client has, joined where they lie side by side.
std::vector<Rectangle> Session::changes(const Screen& screen) const {
  std::vector<Rectangle> all;
  bool everything = !wanted_->incremental || fresh_;
  unsigned width = std::min(screen.width, shown_.width), height = std::min(screen.height, shown_.height);
  for (unsigned y = 0; y < height; y += kTile) {
    unsigned rows = std::min(kTile, height - y);
    bool joins = false;
    for (unsigned x = 0; x < width; x += kTile) {
      unsigned columns = std::min(kTile, width - x);
      bool differs = everything;
      for (unsigned row = y; row < y + rows && !differs; ++row) {
        differs = std::memcmp(screen.row(row) + x, shown_.row(row) + x, columns * sizeof(std::uint32_t)) != 0;
      }
      if (!differs) {
        joins = false;
      } else if (joins && all.back().width + columns <= Encoder::kMaxWidth) {
        all.back().width += columns;
      } else {
        all.push_back({x, y, columns, rows});
        joins = true;
      }
    }
  }
  return all;
}

void Session::update(std::uint64_t generation) {
  if (stage_ != Stage::running || !wanted_ || display_.screen().width == 0) return;
  if (updateBesides(display_.screen())) {
    shownGeneration_ = generation - 1;
    return;
  }
  if (wanted_->incremental && generation == shownGeneration_) return;
  const Screen& screen = picture();
  std::vector<Rectangle> rectangles = changes(screen);
  shownGeneration_ = generation;
  if (rectangles.empty()) return;
  fresh_ = false;
  beginUpdate(out_, rectangles.size());
  for (const Rectangle& r : rectangles) {
    encoder_.encode(out_, screen, r, encoding_, format_);
    for (unsigned y = r.y; y < r.y + r.height; ++y) {
      std::copy_n(screen.row(y) + r.x, r.width, shown_.row(y) + r.x);
    }
  }
  wanted_.reset();
}

}  // namespace lodge::vnc
