// SPDX-License-Identifier: Apache-2.0
#include "image/tar.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <ctime>
#include <optional>

#include "base/text.h"
#include "base/units.h"

namespace lodge::image::tar {

namespace {

/// POSIX.1-1988 "ustar".
struct Header {
  std::array<char, 100> name;
  std::array<char, 8> mode, uid, gid;
  std::array<char, 12> size, mtime;
  std::array<char, 8> checksum;
  char type;
  std::array<char, 100> link;
  std::array<char, 8> magic;  ///< "ustar\0" "00", or "ustar  \0" of GNU
  std::array<char, 32> user, group;
  std::array<char, 8> major, minor;
  std::array<char, 155> prefix;
  std::array<char, 12> padding;
};
static_assert(sizeof(Header) == kBlock);

constexpr std::size_t kMostMembers = 10000;
constexpr std::uint64_t kMostLongName = 64_KiB;

template <std::size_t n>
std::string textIn(const std::array<char, n>& field) {
  return std::string(field.data(), ::strnlen(field.data(), n));
}

template <std::size_t n>
std::optional<std::uint64_t> numberIn(const std::array<char, n>& field) {
  if ((static_cast<unsigned char>(field[0]) & 0x80) != 0) {
    // Base 256, for numbers that octal digits have no room for.
    std::uint64_t value = static_cast<unsigned char>(field[0]) & 0x3f;
    for (std::size_t i = 1; i < n; ++i) {
      if (value >> 52 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
  }
  std::uint64_t value = 0;
  bool any = false;
  for (char c : field) {
    if (c == ' ' && !any) continue;
    if (c < '0' || c > '7') {
      if (c == 0 || c == ' ') break;
      return std::nullopt;
    }
    any = true;
    value = value << 3 | static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

std::uint64_t checksumOf(Header header) {
  header.checksum.fill(' ');
  std::uint64_t sum = 0;
  const char* bytes = reinterpret_cast<const char*>(&header);
  for (std::size_t i = 0; i < sizeof header; ++i) sum += static_cast<unsigned char>(bytes[i]);
  return sum;
}

/// What pax headers ("27 path=...\n") say about the next member.
struct Overrides {
  std::optional<std::string> name;
  std::optional<std::uint64_t> bytes;
};

bool readPax(std::string_view text, Overrides& overrides) {
  while (!text.empty()) {
    std::size_t space = text.find(' ');
    auto length = space == std::string_view::npos ? std::nullopt : parseNumber(text.substr(0, space), text.size());
    if (!length || *length <= space + 1 || text[*length - 1] != '\n') return false;
    std::string_view record = text.substr(space + 1, *length - space - 2);
    std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) return false;
    std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") overrides.name = std::string(value);
    if (key == "size") {
      overrides.bytes = parseNumber(value);
      if (!overrides.bytes) return false;
    }
    text.remove_prefix(*length);
  }
  return true;
}

}  // namespace

Result<std::vector<Member>> readIndex(BlockFile& file) {
  std::vector<Member> members;
  Overrides overrides;
  std::uint64_t end = file.size();
  for (std::uint64_t at = 0; at + kBlock <= end;) {
    auto bad = [&](const char* what) {
      return Error(ErrorKind::corrupt, fmt::format("tar archive: {} at offset {:#x}", what, at));
    };
    Header header{};
    if (int error = file.read(at, &header, sizeof header); error != 0) return Error::fromErrno(error, "read it");
    if (header.name[0] == 0 && textIn(header.magic).empty()) break;  // the zeroes at the end
    auto sum = numberIn(header.checksum);
    if (!sum || *sum != checksumOf(header)) return bad("a header with a wrong checksum");
    auto size = numberIn(header.size);
    if (!size) return bad("a size that is no number");
    bool extended = header.type == 'x' || header.type == 'L' || header.type == 'K' || header.type == 'g';
    std::uint64_t bytes = !extended && overrides.bytes ? *overrides.bytes : *size;
    std::uint64_t content = at + kBlock;
    if (bytes > end - content) return bad("a member that is longer than the archive");
    if (extended) {
      if (bytes > kMostLongName) return bad("an extended header of more than 64 KiB");
      std::string text(bytes, '\0');
      if (int error = file.read(content, text.data(), text.size()); error != 0) {
        return Error::fromErrno(error, "read it");
      }
      if (header.type == 'L') overrides.name = text.substr(0, text.find('\0'));
      if (header.type == 'x' && !readPax(text, overrides)) return bad("an extended header that is damaged");
    } else {
      if (header.type == '0' || header.type == 0 || header.type == '7') {
        std::string prefix = std::memcmp(header.magic.data(), "ustar\0", 6) == 0 ? textIn(header.prefix) : "";
        std::string name = prefix.empty() ? textIn(header.name) : prefix + "/" + textIn(header.name);
        if (overrides.name) name = *overrides.name;
        if (name.starts_with("./")) name = name.substr(2);
        if (members.size() >= kMostMembers) return Error(ErrorKind::unsupported, "a tar archive of so many members");
        members.push_back({name, content, bytes});
      }
      overrides = {};
    }
    at = content + alignUp(bytes, kBlock);
  }
  return members;
}

std::vector<std::byte> makeHeader(const std::string& name, std::uint64_t bytes) {
  Header header{};
  auto octal = [](auto& field, std::uint64_t value) {
    std::string digits = fmt::format("{:0{}o}", value, field.size() - 1);
    std::memcpy(field.data(), digits.data(), digits.size());
  };
  std::memcpy(header.name.data(), name.data(), std::min(name.size(), header.name.size()));
  octal(header.mode, 0644);
  octal(header.uid, 0);
  octal(header.gid, 0);
  octal(header.mtime, static_cast<std::uint64_t>(std::time(nullptr)));
  if (bytes < std::uint64_t{1} << 33) {
    octal(header.size, bytes);
  } else {
    for (std::size_t i = 0; i < 8; ++i) header.size[4 + i] = static_cast<char>(bytes >> (56 - 8 * i));
    header.size[0] = static_cast<char>(0x80);
  }
  header.type = '0';
  std::memcpy(header.magic.data(),
              "ustar\0"
              "00",
              8);
  std::string sum = fmt::format("{:06o}", checksumOf(header));
  header.checksum.fill(' ');
  std::memcpy(header.checksum.data(), sum.data(), 6);
  header.checksum[6] = 0;
  const auto* raw = reinterpret_cast<const std::byte*>(&header);
  return {raw, raw + sizeof header};
}

}  // namespace lodge::image::tar
