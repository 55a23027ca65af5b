// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace lodge::vnc {

/// How a client wants its pixels (RFC 6143, 7.4).
struct PixelFormat {
  std::uint8_t bitsPerPixel = 32, depth = 24;
  bool bigEndian = false;
  std::uint16_t redMax = 255, greenMax = 255, blueMax = 255;
  std::uint8_t redShift = 16, greenShift = 8, blueShift = 0;

  /// The 16 bytes of the protocol. False: none that is served (color maps, odd sizes).
  static bool parse(const std::uint8_t* bytes, PixelFormat& out) {
    PixelFormat f;
    f.bitsPerPixel = bytes[0];
    f.depth = bytes[1];
    f.bigEndian = bytes[2] != 0;
    f.redMax = static_cast<std::uint16_t>(bytes[4] << 8 | bytes[5]);
    f.greenMax = static_cast<std::uint16_t>(bytes[6] << 8 | bytes[7]);
    f.blueMax = static_cast<std::uint16_t>(bytes[8] << 8 | bytes[9]);
    f.redShift = bytes[10];
    f.greenShift = bytes[11];
    f.blueShift = bytes[12];
    bool sized = f.bitsPerPixel == 8 || f.bitsPerPixel == 16 || f.bitsPerPixel == 32;
    if (!sized || bytes[3] == 0 || f.redShift > 31 || f.greenShift > 31 || f.blueShift > 31) return false;
    out = f;
    return true;
  }
  std::string bytes() const {
    const int values[] = {bitsPerPixel,
                          depth,
                          bigEndian,
                          1,
                          redMax >> 8,
                          redMax & 255,
                          greenMax >> 8,
                          greenMax & 255,
                          blueMax >> 8,
                          blueMax & 255,
                          redShift,
                          greenShift,
                          blueShift,
                          0,
                          0,
                          0};
    std::string out;
    for (int value : values) out.push_back(static_cast<char>(value));
    return out;
  }

  unsigned pixelBytes() const { return bitsPerPixel / 8u; }
  std::uint32_t convert(std::uint32_t rgb) const {
    auto part = [](unsigned value, unsigned max, unsigned shift) { return (value * max + 127) / 255 << shift; };
    return part(rgb >> 16 & 255, redMax, redShift) | part(rgb >> 8 & 255, greenMax, greenShift) |
           part(rgb & 255, blueMax, blueShift);
  }
  void append(std::string& out, std::uint32_t rgb) const {
    std::uint32_t value = convert(rgb);
    for (unsigned n = 0; n < pixelBytes(); ++n) {
      unsigned byte = bigEndian ? pixelBytes() - 1 - n : n;
      out.push_back(static_cast<char>(value >> (8 * byte)));
    }
  }

  bool isTrueColor24() const {
    return bitsPerPixel == 32 && depth == 24 && redMax == 255 && greenMax == 255 && blueMax == 255;
  }
  /// A TPIXEL of the Tight encoding: red, green, blue where colors have eight bits each.
  void appendTight(std::string& out, std::uint32_t rgb) const {
    if (!isTrueColor24()) return append(out, rgb);
    for (int shift = 16; shift >= 0; shift -= 8) out.push_back(static_cast<char>(rgb >> shift));
  }
  /// A CPIXEL of ZRLE (7.7.5): three bytes where colors fit into the lower or upper three.
  void appendCompressed(std::string& out, std::uint32_t rgb) const {
    std::uint32_t all = convert(0xffffff);
    bool low = (all & 0xff000000u) == 0, high = (all & 0xffu) == 0;
    if (bitsPerPixel != 32 || depth > 24 || (!low && !high)) return append(out, rgb);
    std::string whole;
    append(whole, rgb);
    bool dropLast = low != bigEndian;
    out.append(whole, dropLast ? 0 : 1, 3);
  }
};

}  // namespace lodge::vnc
