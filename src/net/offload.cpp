// SPDX-License-Identifier: Apache-2.0
#include "net/offload.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/bytes.h"

namespace lodge {

namespace {

constexpr std::uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoEcn = 0x80;
constexpr std::size_t kEthernetBytes = 14, kMaxIpBytes = 65535;

/// The Internet checksum's sum (RFC 1071), not complemented.
std::uint32_t add(std::span<const std::uint8_t> bytes, std::uint32_t sum = 0) {
  std::uint64_t total = 0;
  std::size_t i = 0;
  // In the host's byte order, four bytes at a time: the sum of swapped words is the swapped sum (RFC 1071, 2 B).
  for (; i + 8 <= bytes.size(); i += 8)
    total += std::uint64_t{loadLe<std::uint32_t>(&bytes[i])} + loadLe<std::uint32_t>(&bytes[i + 4]);
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  total = (total & 0xff) << 8 | total >> 8;
  total += sum;
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
  return (sum & 0xffff) + (sum >> 16);
}

/// Brings the network header's length and checksum in line with the frame's size.
void sealNetwork(std::vector<std::uint8_t>& f, const Layout& l) {
  if (l.v6) {
    putBe16(&f[l.ip + 4], static_cast<std::uint32_t>(f.size() - l.ip - 40));
  } else {
    putBe16(&f[l.ip + 2], static_cast<std::uint32_t>(f.size() - l.ip));
    putBe16(&f[l.ip + 10], 0);
    putBe16(&f[l.ip + 10], ~add(std::span(f).subspan(l.ip, l.tcp - l.ip)));
  }
}

/// All lengths and checksums of a finished frame.
void seal(std::vector<std::uint8_t>& f, const Layout& l) {
  sealNetwork(f, l);
  putBe16(&f[l.tcp + 16], 0);
  putBe16(&f[l.tcp + 16], ~add(std::span(f).subspan(l.tcp), pseudoHeader(f, l, f.size() - l.tcp)));
}

bool segment(std::span<const std::uint8_t> frame, const FrameOffload& offload,
             const std::function<void(std::span<const std::uint8_t>)>& emit) {
  Layout l;
  if (offload.segmentSize < kLeastSegment || !parse(frame, l)) return false;
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

/// The field holds the pseudo header's sum; the rest of the packet is added to it.
bool fillChecksum(std::span<std::uint8_t> frame, const FrameOffload& offload) {
  std::size_t start = offload.checksumStart, at = start + offload.checksumOffset;
  if (start >= frame.size() || at + 2 > frame.size()) return false;
  std::uint32_t checksum = ~add(frame.subspan(start)) & 0xffff;
  putBe16(&frame[at], checksum == 0 ? 0xffff : checksum);
  return true;
}

std::uint8_t kindOf(const FrameOffload& offload) {
  return offload.segmentation & static_cast<std::uint8_t>(~kGsoEcn);
}

/// Whether the checksums are right, or the sender left TCP's to others.
bool sumsFit(std::span<const std::uint8_t> frame, const Layout& l, const FrameOffload& offload) {
  if (!l.v6 && add(frame.subspan(l.ip, l.tcp - l.ip)) != 0xffff) return false;
  if (offload.needsChecksum) return offload.checksumStart == l.tcp && offload.checksumOffset == 16;
  return add(frame.subspan(l.tcp), pseudoHeader(frame, l, frame.size() - l.tcp)) == 0xffff;
}

}  // namespace

bool finishOffload(std::span<const std::uint8_t> frame, const FrameOffload& offload,
                   const std::function<void(std::span<const std::uint8_t>)>& emit) {
  std::uint8_t kind = kindOf(offload);
  if (kind != kGsoNone) return (kind == kGsoTcp4 || kind == kGsoTcp6) && segment(frame, offload, emit);
  if (!offload.needsChecksum) {
    emit(frame);
    return true;
  }
  std::vector<std::uint8_t> out(frame.begin(), frame.end());
  if (!fillChecksum(out, offload)) return false;
  emit(out);
  return true;
}

bool finishWhole(std::vector<std::uint8_t>& frame, const FrameOffload& offload) {
  std::uint8_t kind = kindOf(offload);
  if (kind == kGsoNone) return !offload.needsChecksum || fillChecksum(frame, offload);
  Layout l;
  if ((kind != kGsoTcp4 && kind != kGsoTcp6) || !parse(frame, l) || l.v6 != (kind == kGsoTcp6)) return false;
  if (frame.size() - l.ip - (l.v6 ? 40 : 0) > kMaxIpBytes) return false;
  seal(frame, l);
  return true;
}

/// Whether the frame's TCP segment continues the held one, with headers that say the same.
bool SegmentJoiner::follows(std::span<const std::uint8_t> frame) const {
  if (held_.empty() || complete_ || frame.size() < payload_) return false;
  std::size_t bytes = frame.size() - payload_;
  if (bytes == 0 || bytes > segment_ || held_.size() + bytes > kMaxIpBytes) return false;
  if (loadBe<std::uint32_t>(&frame[tcp_ + 4]) != next_) return false;
  auto same = [&](std::size_t from, std::size_t to) { return std::equal(&held_[from], &held_[to], &frame[from]); };
  bool sameIp = v6_ ? same(0, kEthernetBytes + 4) && same(kEthernetBytes + 6, tcp_)
                    : same(0, kEthernetBytes + 2) && same(kEthernetBytes + 6, kEthernetBytes + 10) &&
                          same(kEthernetBytes + 12, tcp_);
  // Ports; acknowledgement and header length; window; urgent pointer and options. The flags were looked at.
  return sameIp && same(tcp_, tcp_ + 4) && same(tcp_ + 8, tcp_ + 13) && same(tcp_ + 14, tcp_ + 16) &&
         same(tcp_ + 18, payload_);
}

void SegmentJoiner::take(std::span<const std::uint8_t> frame, const FrameOffload& offload, bool verify) {
  constexpr std::uint8_t kPush = 8, kAck = 16;
  Layout l;
  bool plain = offload.segmentation == kGsoNone && parse(frame, l) && l.ip == kEthernetBytes &&
               (frame[l.tcp + 13] & ~kPush) == kAck;
  if (plain && !l.v6) {
    bool whole = (loadBe<std::uint16_t>(&frame[l.ip + 6]) & 0x3fff) == 0 && l.tcp == l.ip + 20;
    plain = whole && l.ip + loadBe<std::uint16_t>(&frame[l.ip + 2]) == frame.size();
  } else if (plain) {
    plain = l.tcp + loadBe<std::uint16_t>(&frame[l.ip + 4]) == frame.size();
  }
  plain = plain && frame.size() > l.payload && (!verify || sumsFit(frame, l, offload));
  if (!plain) {
    flush();
    receiver_(frame, offload);
    return;
  }
  std::size_t bytes = frame.size() - l.payload;
  if (l.tcp == tcp_ && l.payload == payload_ && l.v6 == v6_ && follows(frame)) {
    held_.insert(held_.end(), frame.begin() + static_cast<long>(l.payload), frame.end());
    held_[tcp_ + 13] |= frame[l.tcp + 13];
    joined_ = true;
  } else {
    flush();
    held_.assign(frame.begin(), frame.end());
    offload_ = offload;
    tcp_ = l.tcp;
    payload_ = l.payload;
    v6_ = l.v6;
    segment_ = bytes;
    joined_ = false;
  }
  next_ = loadBe<std::uint32_t>(&frame[l.tcp + 4]) + static_cast<std::uint32_t>(bytes);
  complete_ = bytes < segment_ || (frame[l.tcp + 13] & kPush) != 0;
}

void SegmentJoiner::flush() {
  if (held_.empty()) return;
  FrameOffload offload = offload_;
  if (joined_) {
    Layout l{kEthernetBytes, tcp_, payload_, v6_};
    offload.needsChecksum = true;
    offload.checksumStart = static_cast<std::uint16_t>(tcp_);
    offload.checksumOffset = 16;
    offload.segmentation = v6_ ? kGsoTcp6 : kGsoTcp4;
    offload.segmentSize = static_cast<std::uint16_t>(segment_);
    offload.headerLength = static_cast<std::uint16_t>(payload_);
    sealNetwork(held_, l);
    putBe16(&held_[tcp_ + 16], pseudoHeader(held_, l, held_.size() - tcp_));
  }
  std::vector<std::uint8_t> frame = std::move(held_);
  held_.clear();
  receiver_(frame, offload);
  if (held_.empty()) {  // keeps the memory
    frame.clear();
    held_ = std::move(frame);
  }
}

}  // namespace lodge
