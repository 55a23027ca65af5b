// SPDX-License-Identifier: Apache-2.0
// The bus master half of an IDE channel ("Programming Interface for Bus Master IDE Controller", revision 1.0).
#include <algorithm>
#include <span>

#include "base/bytes.h"
#include "storage/ide_channel.h"

namespace lodge {

namespace {
constexpr std::uint8_t kStart = 1, kToMemory = 8;                 // command
constexpr std::uint8_t kActive = 1, kErrors = 2, kInterrupt = 4;  // status
}  // namespace

std::uint64_t IdeChannel::readBusMaster(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  std::uint8_t bytes[8] = {master_.command, 0, master_.status, 0};
  storeLe(bytes + 4, master_.table);
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size && offset + n < sizeof bytes; ++n) value |= std::uint64_t{bytes[offset + n]} << (8 * n);
  return value;
}

void IdeChannel::writeBusMaster(std::uint64_t offset, unsigned size, std::uint64_t value) {
  IdeDrive::Job job;
  {
    std::lock_guard lock(mutex_);
    for (unsigned n = 0; n < size; ++n) {
      auto byte = static_cast<std::uint8_t>(value >> (8 * n));
      unsigned at = static_cast<unsigned>(offset) + n;
      if (at == 0) {
        bool starts = (byte & kStart) != 0 && (master_.command & kStart) == 0;
        master_.command = byte & (kStart | kToMemory);
        if (starts) {
          master_.next = master_.table;
          master_.left = 0;
          master_.last = false;
          master_.status |= kActive;
        } else if ((byte & kStart) == 0) {
          master_.status &= static_cast<std::uint8_t>(~kActive);
        }
      } else if (at == 2) {
        constexpr std::uint8_t kCapable = 0x60;
        std::uint8_t kept = master_.status & static_cast<std::uint8_t>(~(byte & (kErrors | kInterrupt)));
        master_.status = static_cast<std::uint8_t>((kept & ~kCapable) | (byte & kCapable));
      } else if (at >= 4 && at < 8) {
        unsigned shift = 8 * (at - 4);
        master_.table = ((master_.table & ~(0xffu << shift)) | std::uint32_t{byte} << shift) & ~3u;
      }
    }
    job = settleLocked();
  }
  start(std::move(job));
}

// The next entry of the table: address, count (0 is 64 KiB), and in bit 31 whether it is the last.
bool IdeChannel::nextRegionLocked() {
  std::uint8_t entry[8];
  if (master_.last || !memory_.readObject(Gpa{master_.next}, entry)) return false;
  master_.next += sizeof entry;
  master_.address = loadLe<std::uint32_t>(entry) & ~1u;
  std::uint32_t count = loadLe<std::uint32_t>(entry + 4);
  master_.left = count & 0xfffe;
  if (master_.left == 0) master_.left = 0x10000;
  master_.last = (count >> 31) != 0;
  return true;
}

bool IdeChannel::transferLocked(IdeDrive& drive, bool toGuest) {
  if (toGuest != ((master_.command & kToMemory) != 0)) return false;
  std::span<std::byte> bytes = std::as_writable_bytes(std::span(drive.data()));
  while (!bytes.empty()) {
    if (master_.left == 0 && !nextRegionLocked()) return false;
    std::size_t count = std::min<std::size_t>(bytes.size(), master_.left);
    Gpa at{master_.address};
    bool moved = toGuest ? memory_.write(at, bytes.first(count)) : memory_.read(at, bytes.first(count));
    if (!moved) return false;
    bytes = bytes.subspan(count);
    master_.address += static_cast<std::uint32_t>(count);
    master_.left -= static_cast<std::uint32_t>(count);
  }
  return true;
}

}  // namespace lodge
