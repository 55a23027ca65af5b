// SPDX-License-Identifier: Apache-2.0
#include "vnc/clipboard_text.h"

#include <zlib.h>

#include <cstdint>

#include "vnc/wire.h"

namespace lodge::vnc {

namespace {
/// The character at the front of `text`, which is taken off; nothing: no UTF-8.
std::optional<std::uint32_t> takeCharacter(std::string_view& text) {
  auto first = static_cast<unsigned char>(text[0]);
  unsigned length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (length == 0 || text.size() < length) return std::nullopt;
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  std::uint32_t code = length == 1 ? first : first & (0xffu >> (length + 1));
  for (unsigned n = 1; n < length; ++n) {
    auto byte = static_cast<unsigned char>(text[n]);
    if (byte >> 6 != 2) return std::nullopt;
    code = code << 6 | (byte & 63);
  }
  if (code < kLeast[length] || code > 0x10ffff || code >> 11 == 0xd800 >> 11) return std::nullopt;
  text.remove_prefix(length);
  return code;
}

/// Without CR before LF, and up to the first zero.
std::string withPlainLines(std::string_view text) {
  std::string out;
  for (std::size_t n = 0; n < text.size() && text[n] != 0; ++n) {
    if (text[n] != '\r' || n + 1 == text.size() || text[n + 1] != '\n') out.push_back(text[n]);
  }
  return out;
}

/// At most `most` bytes of what the stream holds. Nothing: it is none, or does not end.
std::optional<std::string> inflate(std::string_view packed, std::size_t most) {
  std::string out(most, '\0');
  uLongf length = out.size();
  auto size = static_cast<uLong>(packed.size());
  int result = ::uncompress2(reinterpret_cast<Bytef*>(out.data()), &length,
                             reinterpret_cast<const Bytef*>(packed.data()), &size);
  // A stream that is flushed, but not ended, is a stream, too.
  if (result != Z_OK && !(result == Z_BUF_ERROR || result == Z_DATA_ERROR)) return std::nullopt;
  out.resize(length);
  return out;
}
}  // namespace

bool isUtf8(std::string_view text) {
  while (!text.empty()) {
    if (!takeCharacter(text)) return false;
  }
  return true;
}

std::string fromLatin1(std::string_view bytes) {
  std::string out;
  for (char c : bytes) {
    auto code = static_cast<unsigned char>(c);
    if (code < 0x80) {
      out.push_back(c);
    } else {
      out.push_back(static_cast<char>(0xc0 | code >> 6));
      out.push_back(static_cast<char>(0x80 | (code & 63)));
    }
  }
  return withPlainLines(out);
}

std::string toLatin1(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    auto code = takeCharacter(text);
    if (!code) text.remove_prefix(1);
    out.push_back(code && *code < 0x100 ? static_cast<char>(*code) : '?');
  }
  return out;
}

std::optional<std::string> unpackText(std::string_view payload, std::size_t most) {
  // CR and zero take room, too; a text of nothing but line ends doubles.
  auto plain = inflate(payload, 4 + 2 * most + 1);
  if (!plain || plain->size() < 4) return std::nullopt;
  std::uint32_t length = get(reinterpret_cast<const std::uint8_t*>(plain->data()), 4);
  if (length > plain->size() - 4) return std::nullopt;
  std::string text = withPlainLines(std::string_view(*plain).substr(4, length));
  if (text.size() > most || !isUtf8(text)) return std::nullopt;
  return text;
}

std::string packText(std::string_view text) {
  std::string lines;
  for (char c : text) {
    if (c == '\n') lines.push_back('\r');
    lines.push_back(c);
  }
  lines.push_back('\0');
  std::string plain;
  put(plain, static_cast<std::uint32_t>(lines.size()), 4);
  plain += lines;
  std::string packed(::compressBound(plain.size()), '\0');
  uLongf length = packed.size();
  ::compress(reinterpret_cast<Bytef*>(packed.data()), &length, reinterpret_cast<const Bytef*>(plain.data()),
             plain.size());
  packed.resize(length);
  return packed;
}

}  // namespace lodge::vnc
