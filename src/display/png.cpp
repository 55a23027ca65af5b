// SPDX-License-Identifier: Apache-2.0
#include <zlib.h>

#include "display/screen.h"

namespace lodge {

namespace {
void put32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

void chunk(std::string& out, std::string_view type, const std::string& body) {
  put32(out, static_cast<std::uint32_t>(body.size()));
  std::string checked(type);
  checked += body;
  out += checked;
  put32(out, static_cast<std::uint32_t>(
                 ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()))));
}
}  // namespace

std::string encodePng(const Screen& screen) {
  std::string raw;
  raw.reserve((std::size_t{screen.width} * 3 + 1) * screen.height);
  for (unsigned y = 0; y < screen.height; ++y) {
    raw.push_back(0);  // no filter
    for (unsigned x = 0; x < screen.width; ++x) {
      std::uint32_t pixel = screen.row(y)[x];
      for (int shift = 16; shift >= 0; shift -= 8) raw.push_back(static_cast<char>(pixel >> shift));
    }
  }
  uLongf length = ::compressBound(static_cast<uLong>(raw.size()));
  std::string packed(length, '\0');
  ::compress2(reinterpret_cast<Bytef*>(packed.data()), &length, reinterpret_cast<const Bytef*>(raw.data()),
              static_cast<uLong>(raw.size()), Z_DEFAULT_COMPRESSION);
  packed.resize(length);
  std::string out("\x89PNG\r\n\x1a\n");
  std::string header;
  put32(header, screen.width);
  put32(header, screen.height);
  header.append("\x08\x02\0\0\0", 5);  // 8 bits a sample, RGB
  chunk(out, "IHDR", header);
  chunk(out, "IDAT", packed);
  chunk(out, "IEND", {});
  return out;
}

}  // namespace lodge
