// SPDX-License-Identifier: Apache-2.0
#include "virtio/segmentation.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/bytes.h"

namespace lodge::virtio {

namespace {

constexpr std::uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoEcn = 0x80;
constexpr std::size_t kEthernetBytes = 14;

/// The Internet checksum's sum (RFC 1071), not complemented.
std::uint32_t add(std::span<const std::uint8_t> bytes, std::uint32_t sum = 0) {
  std::uint64_t total = sum;
  std::size_t i = 0;
  for (; i + 2 <= bytes.size(); i += 2) total += loadBe<std::uint16_t>(&bytes[i]);
  if (i < bytes.size()) total += std::uint32_t{bytes[i]} << 8;
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return static_cast<std::uint32_t>(total);
}

void putBe16(std::uint8_t* to, std::uint32_t value) {
  to[0] = static_cast<std::uint8_t>(value >> 8);
  to[1] = static_cast<std::uint8_t>(value);
}
void putBe32(std::uint8_t* to, std::uint32_t value) {
  putBe16(to, value >> 16);
  putBe16(to + 2, value);
}

struct Layout {
  std::size_t ip = 0, tcp = 0, payload = 0;
  bool v6 = false;
};

/// Where the headers lie in a frame that claims to be a TCP segment.
bool parse(std::span<const std::uint8_t> f, Layout& out) {
  std::size_t at = kEthernetBytes;
  if (f.size() < at + 40) return false;
  std::uint16_t type = loadBe<std::uint16_t>(&f[12]);
  if (type == 0x8100) {
    type = loadBe<std::uint16_t>(&f[16]);
    at += 4;
  }
  out.ip = at;
  out.v6 = type == 0x86dd;
  if (!out.v6 && type != 0x0800) return false;
  if (f.size() < at + 60) return false;
  out.tcp = at + (out.v6 ? 40u : 4u * (f[at] & 15));
  if (out.tcp < at + 20 || f[at + (out.v6 ? 6 : 9)] != 6 || f.size() < out.tcp + 20) return false;
  out.payload = out.tcp + 4u * (f[out.tcp + 12] >> 4);
  return out.payload >= out.tcp + 20 && out.payload <= f.size();
}

std::uint32_t pseudoHeader(std::span<const std::uint8_t> f, const Layout& l, std::size_t tcpBytes) {
  auto addresses = l.v6 ? f.subspan(l.ip + 8, 32) : f.subspan(l.ip + 12, 8);
  std::uint32_t sum =
      add(addresses) + 6 + static_cast<std::uint32_t>(tcpBytes >> 16) + static_cast<std::uint32_t>(tcpBytes & 0xffff);
  return sum;
}

/// Brings lengths and checksums of one finished frame in line with its size.
void seal(std::vector<std::uint8_t>& f, const Layout& l) {
  std::size_t tcpBytes = f.size() - l.tcp;
  if (l.v6) {
    putBe16(&f[l.ip + 4], static_cast<std::uint32_t>(f.size() - l.ip - 40));
  } else {
    putBe16(&f[l.ip + 2], static_cast<std::uint32_t>(f.size() - l.ip));
    putBe16(&f[l.ip + 10], 0);
    putBe16(&f[l.ip + 10], ~add(std::span(f).subspan(l.ip, l.tcp - l.ip)));
  }
  putBe16(&f[l.tcp + 16], 0);
  putBe16(&f[l.tcp + 16], ~add(std::span(f).subspan(l.tcp), pseudoHeader(f, l, tcpBytes)));
}

bool segment(std::span<const std::uint8_t> frame, const FrameOffload& offload,
             const std::function<void(std::span<const std::uint8_t>)>& emit) {
  Layout l;
  if (offload.segmentSize == 0 || !parse(frame, l)) return false;
  if (l.v6 != ((offload.segmentation & ~kGsoEcn) == kGsoTcp6)) return false;
  constexpr std::uint8_t kFin = 1, kPush = 8, kCwr = 0x80;
  std::uint32_t sequence = loadBe<std::uint32_t>(&frame[l.tcp + 4]);
  std::uint16_t id = loadBe<std::uint16_t>(&frame[l.ip + 4]);
  std::size_t total = frame.size() - l.payload;
  std::vector<std::uint8_t> out;
  for (std::size_t done = 0, number = 0; done < total || number == 0; ++number) {
    std::size_t part = std::min<std::size_t>(offload.segmentSize, total - done);
    auto data = frame.subspan(l.payload + done, part);
    out.assign(frame.begin(), frame.begin() + static_cast<long>(l.payload));
    out.insert(out.end(), data.begin(), data.end());
    putBe32(&out[l.tcp + 4], sequence + static_cast<std::uint32_t>(done));
    if (!l.v6) putBe16(&out[l.ip + 4], id + static_cast<std::uint32_t>(number));
    // FIN and PSH belong to the last, CWR to the first (RFC 3168, 6.1.2).
    if (done + part < total) out[l.tcp + 13] &= static_cast<std::uint8_t>(~(kFin | kPush));
    if (number != 0) out[l.tcp + 13] &= static_cast<std::uint8_t>(~kCwr);
    seal(out, l);
    emit(out);
    done += part;
  }
  return true;
}

}  // namespace

bool finishOffload(std::span<const std::uint8_t> frame, const FrameOffload& offload,
                   const std::function<void(std::span<const std::uint8_t>)>& emit) {
  std::uint8_t kind = offload.segmentation & static_cast<std::uint8_t>(~kGsoEcn);
  if (kind != kGsoNone) return (kind == kGsoTcp4 || kind == kGsoTcp6) && segment(frame, offload, emit);
  if (!offload.needsChecksum) {
    emit(frame);
    return true;
  }
  std::size_t start = offload.checksumStart, at = start + offload.checksumOffset;
  if (start >= frame.size() || at + 2 > frame.size()) return false;
  std::vector<std::uint8_t> out(frame.begin(), frame.end());
  // The field holds the pseudo header's sum; the rest of the packet is added to it.
  std::uint32_t checksum = ~add(std::span(out).subspan(start)) & 0xffff;
  putBe16(&out[at], checksum == 0 ? 0xffff : checksum);
  emit(out);
  return true;
}

}  // namespace lodge::virtio
