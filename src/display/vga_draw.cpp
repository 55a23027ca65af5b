// SPDX-License-Identifier: Apache-2.0
// From video memory to a picture.
#include <algorithm>
#include <mutex>

#include "display/vga.h"
#include "display/vga_modes.h"

namespace lodge {

namespace {
using Colors = std::array<std::uint32_t, 256>;

/// The palette's colors; six bits a channel, but with the DISPI's wide DAC.
Colors colorsOf(const Vga::Registers& r) {
  bool wide = (r.dispi[dispi::enable] & dispi::kEightBitDac) != 0;
  Colors colors{};
  for (unsigned n = 0; n < colors.size(); ++n) {
    unsigned entry = (n & r.dacMask) * 3;
    for (unsigned part = 0; part < 3; ++part) {
      unsigned value = r.palette[entry + part];
      if (!wide) value = (value & 0x3f) << 2 | (value & 0x3f) >> 4;
      colors[n] = colors[n] << 8 | value;
    }
  }
  return colors;
}

/// The sixteen colors of text and planar modes, through the attribute controller.
std::array<std::uint32_t, 16> attributeColors(const Vga::Registers& r, const Colors& colors) {
  std::array<std::uint32_t, 16> result{};
  for (unsigned n = 0; n < result.size(); ++n) {
    unsigned v = r.attribute[n] & 0x3f;
    if ((r.attribute[0x10] & 0x80) != 0) {
      v = (r.attribute[0x14] & 15u) << 4 | (v & 15);
    } else {
      v |= (r.attribute[0x14] & 12u) << 4;
    }
    result[n] = colors[v];
  }
  return result;
}

unsigned linesOf(const Vga::Registers& r) {
  return (r.crtc[0x12] | (r.crtc[7] & 2u) << 7 | (r.crtc[7] & 0x40u) << 3) + 1;
}

std::uint32_t startOf(const Vga::Registers& r) {
  return r.crtc[0x0c] << 8 | r.crtc[0x0d];
}

std::uint32_t pixel16(unsigned v) {
  unsigned red = v >> 11, green = v >> 5 & 0x3f, blue = v & 0x1f;
  return (red << 3 | red >> 2) << 16 | (green << 2 | green >> 4) << 8 | (blue << 3 | blue >> 2);
}
std::uint32_t pixel15(unsigned v) {
  unsigned red = v >> 10 & 0x1f, green = v >> 5 & 0x1f, blue = v & 0x1f;
  return (red << 3 | red >> 2) << 16 | (green << 3 | green >> 2) << 8 | (blue << 3 | blue >> 2);
}
/// The color number of pixel `bit` (7: leftmost) of four planes' bytes.
unsigned planarPixel(const std::uint8_t* bytes, unsigned bit) {
  return (bytes[0] >> bit & 1u) | (bytes[1] >> bit & 1u) << 1 | (bytes[2] >> bit & 1u) << 2 |
         (bytes[3] >> bit & 1u) << 3;
}
}  // namespace

bool Vga::draw(Screen& screen) {
  std::lock_guard lock(mutex_);
  if (!takeChangesLocked()) return false;
  drawLocked(screen);
  return true;
}

void Vga::redraw() {
  std::lock_guard lock(mutex_);
  changed_ = true;
}

bool Vga::takeChangesLocked() {
  bool dirty = false;
  for (std::uint64_t page = 0; page < kMemoryBytes / kPageSize; ++page) dirty |= memory_.takeVideoDirty(page);
  // vCPUs may store to those pages unnoticed until they have forgotten them: what they do in between is seen next time.
  if (dirty) memory_.mapChanged();
  bool changed = dirty || again_ || changed_;
  again_ = dirty;
  changed_ = false;
  return changed;
}

void Vga::drawLocked(Screen& screen) {
  constexpr std::uint8_t kPaletteOn = 0x20, kScreenOff = 0x20, kGraphics = 1;
  if (dispiOnLocked()) return drawDispi(screen);
  if ((regs_.attributeIndex & kPaletteOn) == 0 || (regs_.sequencer[1] & kScreenOff) != 0) {
    if (screen.width == 0) screen.resize(640, 400);
    std::ranges::fill(screen.pixels, 0);
  } else if ((regs_.graphics[6] & kGraphics) != 0) {
    drawGraphics(screen);
  } else {
    drawText(screen);
  }
}

void Vga::drawDispi(Screen& screen) {
  const auto& d = regs_.dispi;
  unsigned width = d[dispi::width], height = d[dispi::height], bits = d[dispi::bitsPerPixel];
  screen.resize(width, height);
  Colors colors = colorsOf(regs_);
  std::array<std::uint32_t, 16> few = attributeColors(regs_, colors);
  Pitch pitch(d[dispi::virtualWidth], bits), line(width, bits), skipped(d[dispi::xOffset], bits);
  for (unsigned y = 0; y < height; ++y) {
    std::uint64_t at = (std::uint64_t{y} + d[dispi::yOffset]) * pitch.bytes + skipped.bytes;
    if (at + line.bytes > kMemoryBytes) return;
    const std::uint8_t* from = video() + at;
    std::uint32_t* to = screen.row(y);
    for (unsigned x = 0; x < width; ++x) {
      switch (bits) {
        case 4:
          to[x] = few[planarPixel(from + x / 8 * 4, 7 - x % 8)];
          break;
        case 8:
          to[x] = colors[from[x]];
          break;
        case 15:
          to[x] = pixel15(from[2 * x] | from[2 * x + 1] << 8);
          break;
        case 16:
          to[x] = pixel16(static_cast<unsigned>(from[2 * x] | from[2 * x + 1] << 8));
          break;
        case 24:
          to[x] = static_cast<std::uint32_t>(from[3 * x] | from[3 * x + 1] << 8 | from[3 * x + 2] << 16);
          break;
        default:
          to[x] = static_cast<std::uint32_t>(from[4 * x] | from[4 * x + 1] << 8 | from[4 * x + 2] << 16);
          break;
      }
    }
  }
}

void Vga::drawText(Screen& screen) {
  const Registers& r = regs_;
  unsigned columns = std::min(r.crtc[1] + 1u, 200u);
  unsigned cellHeight = (r.crtc[9] & 0x1fu) + 1, cellWidth = (r.sequencer[1] & 1) != 0 ? 8 : 9;
  unsigned rows = std::clamp(linesOf(r) / cellHeight, 1u, 100u);
  screen.resize(columns * cellWidth, rows * cellHeight);
  auto colors = attributeColors(r, colorsOf(r));
  unsigned map = r.sequencer[3];
  const std::uint32_t fonts[2] = {((map >> 4 & 1) | (map << 1 & 6)) * 8192, ((map >> 5 & 1) | (map >> 1 & 6)) * 8192};
  bool blinks = (r.attribute[0x10] & 8) != 0, lineGraphics = (r.attribute[0x10] & 4) != 0;
  std::uint32_t cursor = static_cast<std::uint32_t>(r.crtc[0x0e] << 8 | r.crtc[0x0f]);
  unsigned cursorStart = r.crtc[0x0a] & 0x1f, cursorEnd = r.crtc[0x0b] & 0x1f;
  bool cursorOn = (r.crtc[0x0a] & 0x20) == 0;
  for (unsigned row = 0; row < rows; ++row) {
    for (unsigned column = 0; column < columns; ++column) {
      std::uint32_t cell = (startOf(r) + row * r.crtc[0x13] * 2u + column) & 0xffff;
      std::uint8_t character = video()[4 * cell], look = video()[4 * cell + 1];
      std::uint32_t ink = colors[look & 15], paper = colors[blinks ? look >> 4 & 7 : look >> 4];
      for (unsigned y = 0; y < cellHeight; ++y) {
        std::uint8_t glyph = video()[4 * (fonts[look >> 3 & 1] + character * 32u + y) + 2];
        if (cursorOn && cell == cursor && y >= cursorStart && y <= cursorEnd) glyph = 0xff;
        std::uint32_t* to = screen.row(row * cellHeight + y) + column * cellWidth;
        for (unsigned x = 0; x < 8; ++x) to[x] = (glyph >> (7 - x) & 1) != 0 ? ink : paper;
        bool joins = lineGraphics && character >= 0xc0 && character <= 0xdf;
        if (cellWidth == 9) to[8] = joins && (glyph & 1) != 0 ? ink : paper;
      }
    }
  }
}

void Vga::drawGraphics(Screen& screen) {
  const Registers& r = regs_;
  unsigned shift = r.graphics[5] >> 5 & 3;  // 0: planes, 1: CGA's pairs of bits, 2 and 3: bytes
  unsigned width = (r.crtc[1] + 1u) * 8, height = std::min(linesOf(r), 1024u);
  screen.resize(width, height);
  Colors colors = colorsOf(r);
  auto few = attributeColors(r, colors);
  unsigned repeat = shift == 1 ? r.crtc[9] >> 7 : (((r.crtc[9] & 0x1fu) + 1) << (r.crtc[9] >> 7)) - 1;
  unsigned mode = r.crtc[0x17], left = repeat, rowScan = 0;
  std::uint32_t lineStart = startOf(r) * 4, lineBytes = r.crtc[0x13] * 8u;
  unsigned compare = r.crtc[0x18] | (r.crtc[7] & 0x10u) << 4 | (r.crtc[9] & 0x40u) << 3;
  for (unsigned y = 0; y < height; ++y) {
    std::uint32_t at = lineStart;
    if ((mode & 1) == 0) {
      unsigned bit = 14 + (mode >> 6 & 1);
      at = (at & ~(1u << bit)) | (rowScan & 1) << bit;
    }
    if ((mode & 2) == 0) at = (at & ~0x8000u) | (rowScan & 2) << 14;
    std::uint32_t* to = screen.row(y);
    for (unsigned x = 0; x < width; ++x) {
      constexpr std::uint32_t kMask = 0x3ffff;
      if (shift >= 2) {
        to[x] = colors[video()[(at + x / 2) & kMask]];
      } else if (shift == 1) {
        // Eight pixels in two bytes, which lie in planes 0 and 1.
        std::uint32_t byte = (at + x / 8 * 4 + (x / 4 & 1)) & kMask;
        to[x] = few[video()[byte] >> (6 - 2 * (x % 4)) & 3];
      } else {
        to[x] = few[planarPixel(video() + ((at + x / 8 * 4) & kMask), 7 - x % 8) & r.attribute[0x12] & 15];
      }
    }
    if (left != 0) {
      --left;
    } else {
      left = repeat;
      unsigned mask = (mode & 3) ^ 3;
      if ((rowScan & mask) == mask) lineStart += lineBytes;
      ++rowScan;
    }
    if (y == compare) lineStart = 0;
  }
}

}  // namespace lodge
