// SPDX-License-Identifier: Apache-2.0
#include "vnc/encoder.h"

#include <algorithm>
#include <array>

namespace lodge::vnc {

namespace {
void put(std::string& out, std::uint32_t value, unsigned bytes) {
  for (unsigned n = bytes; n-- > 0;) out.push_back(static_cast<char>(value >> (8 * n)));
}

/// The colors of a rectangle, if they are no more than `kMost`.
class Palette {
 public:
  static constexpr unsigned kMost = 16;

  Palette(const Screen& screen, const Rectangle& r) {
    for (unsigned y = r.y; y < r.y + r.height && count_ <= kMost; ++y) {
      const std::uint32_t* row = screen.row(y);
      for (unsigned x = r.x; x < r.x + r.width && count_ <= kMost; ++x) {
        if (indexOf(row[x]) == count_) add(row[x]);
      }
    }
  }
  /// Above kMost: too many.
  unsigned count() const { return count_; }
  std::uint32_t color(unsigned index) const { return colors_[index]; }
  unsigned indexOf(std::uint32_t color) const {
    unsigned n = 0;
    while (n < count_ && n < kMost && colors_[n] != color) ++n;
    return n < kMost ? n : count_;
  }

 private:
  void add(std::uint32_t color) {
    if (count_ < kMost) colors_[count_] = color;
    ++count_;
  }
  std::array<std::uint32_t, kMost> colors_{};
  unsigned count_ = 0;
};

/// A tile of ZRLE: one color, a packed palette, or pixels as they are.
void zrleTile(std::string& out, const Screen& screen, const Rectangle& tile, const PixelFormat& format) {
  Palette palette(screen, tile);
  bool few = palette.count() <= Palette::kMost;
  out.push_back(static_cast<char>(few ? palette.count() : 0));
  for (unsigned n = 0; few && n < palette.count(); ++n) format.appendCompressed(out, palette.color(n));
  if (few && palette.count() == 1) return;
  unsigned bits = palette.count() == 2 ? 1 : palette.count() <= 4 ? 2 : 4;
  for (unsigned y = tile.y; y < tile.y + tile.height; ++y) {
    const std::uint32_t* row = screen.row(y);
    unsigned byte = 0, filled = 0;
    for (unsigned x = tile.x; x < tile.x + tile.width; ++x) {
      if (!few) {
        format.appendCompressed(out, row[x]);
        continue;
      }
      byte = byte << bits | palette.indexOf(row[x]);
      filled += bits;
      if (filled == 8) {
        out.push_back(static_cast<char>(byte));
        byte = filled = 0;
      }
    }
    if (filled != 0) out.push_back(static_cast<char>(byte << (8 - filled)));
  }
}
}  // namespace

Encoder::Deflater::Deflater() {
  constexpr int kLevel = 3;  // text and plain windows pack well at any
  ::deflateInit(&stream_, kLevel);
}

std::string Encoder::Deflater::pack(const std::string& data) {
  std::string out(::deflateBound(&stream_, static_cast<uLong>(data.size())) + 64, '\0');
  stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream_.avail_in = static_cast<uInt>(data.size());
  std::size_t done = 0;
  do {
    if (done == out.size()) out.resize(2 * out.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + done);
    stream_.avail_out = static_cast<uInt>(out.size() - done);
    ::deflate(&stream_, Z_SYNC_FLUSH);
    done = out.size() - stream_.avail_out;
  } while (stream_.avail_out == 0);
  out.resize(done);
  return out;
}

Encoder::Encoder() : zrle_(std::make_unique<Deflater>()), tight_(std::make_unique<Deflater>()) {}

void Encoder::encode(std::string& out, const Screen& screen, const Rectangle& r, Encoding how,
                     const PixelFormat& format) {
  for (unsigned value : {r.x, r.y, r.width, r.height}) put(out, value, 2);
  put(out, static_cast<std::uint32_t>(how), 4);
  switch (how) {
    case Encoding::zrle:
      return zrle(out, screen, r, format);
    case Encoding::tight:
      return tight(out, screen, r, format);
    case Encoding::raw:
      for (unsigned y = r.y; y < r.y + r.height; ++y) {
        for (unsigned x = r.x; x < r.x + r.width; ++x) format.append(out, screen.row(y)[x]);
      }
  }
}

void Encoder::zrle(std::string& out, const Screen& screen, const Rectangle& r, const PixelFormat& format) {
  constexpr unsigned kTile = 64;
  std::string plain;
  for (unsigned y = 0; y < r.height; y += kTile) {
    for (unsigned x = 0; x < r.width; x += kTile) {
      zrleTile(plain, screen, {r.x + x, r.y + y, std::min(kTile, r.width - x), std::min(kTile, r.height - y)}, format);
    }
  }
  std::string packed = zrle_->pack(plain);
  put(out, static_cast<std::uint32_t>(packed.size()), 4);
  out += packed;
}

void Encoder::tight(std::string& out, const Screen& screen, const Rectangle& r, const PixelFormat& format) {
  constexpr char kFill = static_cast<char>(0x80), kCopyInStream0 = 0;
  constexpr std::size_t kNotPacked = 12;
  Palette palette(screen, r);
  if (palette.count() == 1) {
    out.push_back(kFill);
    return format.appendTight(out, palette.color(0));
  }
  out.push_back(kCopyInStream0);
  std::string plain;
  for (unsigned y = r.y; y < r.y + r.height; ++y) {
    for (unsigned x = r.x; x < r.x + r.width; ++x) format.appendTight(plain, screen.row(y)[x]);
  }
  if (plain.size() < kNotPacked) {
    out += plain;
    return;
  }
  std::string packed = tight_->pack(plain);
  // Seven bits, seven bits, eight bits.
  auto length = static_cast<std::uint32_t>(packed.size());
  out.push_back(static_cast<char>((length & 0x7f) | (length > 0x7f ? 0x80 : 0)));
  if (length > 0x7f) out.push_back(static_cast<char>((length >> 7 & 0x7f) | (length > 0x3fff ? 0x80 : 0)));
  if (length > 0x3fff) out.push_back(static_cast<char>(length >> 14));
  out += packed;
}

}  // namespace lodge::vnc
