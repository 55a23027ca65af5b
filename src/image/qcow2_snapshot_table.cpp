// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_snapshot_table.h"

#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"

namespace lodge::image::qcow2 {

namespace {

constexpr std::size_t kFixedBytes = 40, kExtraKnown = 24;
constexpr std::uint64_t kMaxTableBytes = 64u << 20;

Error corrupt(std::uint32_t index) {
  return {ErrorKind::corrupt, fmt::format("corrupt snapshot table: entry {}", index)};
}

}  // namespace

Result<std::vector<Snapshot>> readSnapshots(BlockFile& file, const Header& header, std::uint64_t& tableBytes) {
  std::vector<Snapshot> snapshots;
  std::uint64_t at = header.snapshotsOffset;
  for (std::uint32_t i = 0; i < header.snapshotCount; ++i) {
    std::uint8_t fixed[kFixedBytes];
    if (at >= file.size() || at - header.snapshotsOffset > kMaxTableBytes) return corrupt(i);
    if (int error = file.read(at, fixed, sizeof fixed); error != 0)
      return Error::fromErrno(error, "read the snapshots");
    Snapshot s;
    s.l1Offset = loadBe<std::uint64_t>(fixed);
    s.l1Entries = loadBe<std::uint32_t>(fixed + 8);
    std::uint16_t idBytes = loadBe<std::uint16_t>(fixed + 12), nameBytes = loadBe<std::uint16_t>(fixed + 14);
    s.about.unixSeconds = loadBe<std::uint32_t>(fixed + 16);
    s.about.nanoseconds = loadBe<std::uint32_t>(fixed + 20);
    s.about.vmClock = loadBe<std::uint64_t>(fixed + 24);
    s.about.vmStateBytes = loadBe<std::uint32_t>(fixed + 32);
    std::uint32_t extraBytes = loadBe<std::uint32_t>(fixed + 36);
    if (extraBytes > 1024 || s.l1Entries > kMaxL1Bytes / 8 || s.l1Offset % header.clusterBytes() != 0)
      return corrupt(i);
    std::string rest(std::size_t{extraBytes} + idBytes + nameBytes, '\0');
    if (int error = file.read(at + kFixedBytes, rest.data(), rest.size()); error != 0)
      return Error::fromErrno(error, "read the snapshots");
    s.about.diskBytes = header.size;
    if (extraBytes >= 8) s.about.vmStateBytes = loadBe<std::uint64_t>(rest.data());
    if (extraBytes >= 16) s.about.diskBytes = loadBe<std::uint64_t>(rest.data() + 8);
    if (s.about.diskBytes > (std::uint64_t{1} << 62)) return corrupt(i);
    s.hasIcount = extraBytes >= kExtraKnown;
    if (s.hasIcount) s.icount = loadBe<std::uint64_t>(rest.data() + 16);
    if (extraBytes > kExtraKnown) s.laterExtra = rest.substr(kExtraKnown, extraBytes - kExtraKnown);
    s.about.id = rest.substr(extraBytes, idBytes);
    s.about.name = rest.substr(extraBytes + idBytes, nameBytes);
    at += alignUp(kFixedBytes + rest.size(), 8);
    snapshots.push_back(std::move(s));
  }
  tableBytes = at - header.snapshotsOffset;
  return snapshots;
}

std::vector<std::byte> packSnapshots(const std::vector<Snapshot>& snapshots) {
  std::vector<std::byte> table;
  for (const Snapshot& s : snapshots) {
    std::size_t extra = (s.hasIcount ? kExtraKnown : 16) + s.laterExtra.size(), start = table.size();
    table.resize(start + alignUp(kFixedBytes + extra + s.about.id.size() + s.about.name.size(), 8));
    std::byte* p = table.data() + start;
    auto put16 = [&](std::size_t at, std::size_t v) {
      storeLe(p + at, __builtin_bswap16(static_cast<std::uint16_t>(v)));
    };
    auto put32 = [&](std::size_t at, std::uint64_t v) {
      storeLe(p + at, __builtin_bswap32(static_cast<std::uint32_t>(v)));
    };
    auto put64 = [&](std::size_t at, std::uint64_t v) { storeLe(p + at, __builtin_bswap64(v)); };
    auto text = [&](std::size_t at, const std::string& t) { std::memcpy(p + at, t.data(), t.size()); };
    put64(0, s.l1Offset);
    put32(8, s.l1Entries);
    put16(12, s.about.id.size());
    put16(14, s.about.name.size());
    put32(16, s.about.unixSeconds);
    put32(20, s.about.nanoseconds);
    put64(24, s.about.vmClock);
    put32(32, s.about.vmStateBytes >> 32 == 0 ? s.about.vmStateBytes : 0);
    put32(36, extra);
    put64(40, s.about.vmStateBytes);
    put64(48, s.about.diskBytes);
    if (s.hasIcount) put64(56, s.icount);
    text(kFixedBytes + (s.hasIcount ? kExtraKnown : 16), s.laterExtra);
    text(kFixedBytes + extra, s.about.id);
    text(kFixedBytes + extra + s.about.id.size(), s.about.name);
  }
  return table;
}

}  // namespace lodge::image::qcow2
