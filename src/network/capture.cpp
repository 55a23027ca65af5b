// SPDX-License-Identifier: Apache-2.0
#include "network/capture.h"

#include <algorithm>

#include "base/bytes.h"

namespace lodge::network {

namespace {

constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a, kInterface = 1, kEnhancedPacket = 6;

template <class T>
void put(std::string& out, T value) {
  auto bytes = bytesOf(value);
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void pad(std::string& out) {
  out.append((4 - out.size() % 4) % 4, '\0');
}

void option(std::string& out, std::uint16_t code, std::string_view value) {
  put(out, code);
  put(out, static_cast<std::uint16_t>(value.size()));
  out += value;
  pad(out);
}

/// Type and length around a body whose size is a multiple of four.
std::string block(std::uint32_t type, const std::string& body) {
  std::string out;
  auto length = static_cast<std::uint32_t>(body.size() + 12);
  put(out, type);
  put(out, length);
  out += body;
  put(out, length);
  return out;
}

}  // namespace

std::string CaptureFormat::header() {
  std::string body;
  put<std::uint32_t>(body, 0x1a2b3c4d);
  put<std::uint16_t>(body, 1);
  put<std::uint16_t>(body, 0);
  put<std::int64_t>(body, -1);  // the section's length is not known
  option(body, 4, "Lodge");     // shb_userappl
  option(body, 0, "");
  return block(kSectionHeader, body);
}

std::string CaptureFormat::interface(std::string_view name, std::uint32_t snapLength) {
  std::string body;
  put<std::uint16_t>(body, 1);  // LINKTYPE_ETHERNET
  put<std::uint16_t>(body, 0);
  put(body, snapLength);
  option(body, 2, name);    // if_name
  option(body, 9, "\x09");  // if_tsresol: nanoseconds
  option(body, 0, "");
  return block(kInterface, body);
}

std::string CaptureFormat::packet(std::uint32_t interface, Nanoseconds utc, std::span<const std::uint8_t> frame,
                                  Direction direction, std::uint32_t snapLength) {
  std::size_t kept = snapLength == 0 ? frame.size() : std::min<std::size_t>(frame.size(), snapLength);
  std::string body;
  auto time = static_cast<std::uint64_t>(utc);
  put(body, interface);
  put(body, static_cast<std::uint32_t>(time >> 32));
  put(body, static_cast<std::uint32_t>(time));
  put(body, static_cast<std::uint32_t>(kept));
  put(body, static_cast<std::uint32_t>(frame.size()));
  body.append(reinterpret_cast<const char*>(frame.data()), kept);
  pad(body);
  std::string flags;
  put(flags, static_cast<std::uint32_t>(direction));
  option(body, 2, flags);  // epb_flags
  option(body, 0, "");
  return block(kEnhancedPacket, body);
}

}  // namespace lodge::network
