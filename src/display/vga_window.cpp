// SPDX-License-Identifier: Apache-2.0
// The window at 0xa0000, in code that may run while the guest's vector registers are live (CMakeLists.txt). Video
// memory holds the four planes side by side: byte 4 * n + p is byte n of plane p.
#include <cstring>

#include "display/vga.h"
#include "display/vga_modes.h"

namespace lodge {

namespace {
constexpr std::uint32_t kPlaneBytes = 0x10000;

std::uint32_t fillPlanes(std::uint8_t bits) {
  std::uint32_t value = 0;
  for (unsigned plane = 0; plane < 4; ++plane) {
    if ((bits >> plane & 1) != 0) value |= 0xffu << (8 * plane);
  }
  return value;
}
std::uint32_t inAllPlanes(std::uint8_t byte) {
  return byte * 0x01010101u;
}
}  // namespace

bool Vga::LiveRange::readLive(std::uint64_t offset, unsigned size, std::uint64_t& value) {
  if (!owner.mutex_.try_lock()) return false;
  value = (owner.*readLocked)(offset, size);
  owner.mutex_.unlock();
  return true;
}

bool Vga::LiveRange::writeLive(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (!owner.mutex_.try_lock()) return false;
  (owner.*writeLocked)(offset, size, value);
  owner.mutex_.unlock();
  return true;
}

std::uint64_t Vga::readWindowLocked(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n) {
    value |= std::uint64_t{readWindowByteLocked(static_cast<std::uint32_t>(offset) + n)} << (8 * n);
  }
  return value;
}

void Vga::writeWindowLocked(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned n = 0; n < size; ++n) {
    writeWindowByteLocked(static_cast<std::uint32_t>(offset) + n, static_cast<std::uint8_t>(value >> (8 * n)));
  }
}

bool Vga::dispiOnLocked() const {
  return (regs_.dispi[dispi::enable] & dispi::kEnabled) != 0;
}

// Memory map select (graphics register 6). False: not decoded.
bool Vga::windowAddressLocked(std::uint32_t& address) const {
  switch (regs_.graphics[6] >> 2 & 3) {
    case 0:
      return true;
    case 1:
      return address < 0x10000;
    case 2:
      address -= 0x10000;
      return address < 0x8000;
    default:
      address -= 0x18000;
      return address < 0x8000;
  }
}

std::uint8_t Vga::readWindowByteLocked(std::uint32_t address) {
  if (dispiOnLocked() && regs_.dispi[dispi::bitsPerPixel] > 4) {
    std::uint64_t at = (std::uint64_t{regs_.dispi[dispi::bank]} << 16) + address;
    return address < 0x10000 && at < kMemoryBytes ? video()[at] : 0xff;
  }
  if (!windowAddressLocked(address)) return 0xff;
  if ((regs_.sequencer[4] & 8) != 0) return video()[address];  // chain 4
  bool oddEven = (regs_.graphics[5] & 0x10) != 0;
  if (oddEven) {
    unsigned plane = (regs_.graphics[4] & 2u) | (address & 1);
    return video()[(address & ~1u) << 1 | plane];
  }
  std::uint32_t at = (address & (kPlaneBytes * 2 - 1)) * 4;
  std::memcpy(&regs_.latch, video() + at, 4);
  if ((regs_.graphics[5] & 8) == 0) return static_cast<std::uint8_t>(regs_.latch >> (8 * (regs_.graphics[4] & 3)));
  // Read mode 1: which pixels have the color of the compare register, in the planes that count.
  std::uint32_t differs = (regs_.latch ^ fillPlanes(regs_.graphics[2])) & fillPlanes(regs_.graphics[7]);
  differs |= differs >> 16;
  differs |= differs >> 8;
  return static_cast<std::uint8_t>(~differs);
}

void Vga::writeWindowByteLocked(std::uint32_t address, std::uint8_t value) {
  if (dispiOnLocked() && regs_.dispi[dispi::bitsPerPixel] > 4) {
    std::uint64_t at = (std::uint64_t{regs_.dispi[dispi::bank]} << 16) + address;
    if (address >= 0x10000 || at >= kMemoryBytes) return;
    video()[at] = value;
    return storedLocked(at);
  }
  if (!windowAddressLocked(address)) return;
  std::uint8_t planes = regs_.sequencer[2];
  if ((regs_.sequencer[4] & 8) != 0) {
    if ((planes >> (address & 3) & 1) == 0) return;
    video()[address] = value;
    return storedLocked(address);
  }
  if ((regs_.sequencer[4] & 4) == 0) {  // odd/even
    unsigned plane = address & 1;
    std::uint32_t at = (address & ~1u) << 1;
    for (unsigned p : {plane, plane + 2}) {
      if ((planes >> p & 1) != 0) video()[at | p] = value;
    }
    return storedLocked(at);
  }
  writePlanesLocked((address & (kPlaneBytes * 2 - 1)) * 4, value);
}

// Write modes 0 to 3 (graphics register 5), with rotation, set/reset, function, bit mask and map mask.
void Vga::writePlanesLocked(std::uint32_t at, std::uint8_t value) {
  auto& g = regs_.graphics;
  std::uint32_t data = 0;
  std::uint32_t bitMask = inAllPlanes(g[8]);
  unsigned rotate = g[3] & 7;
  auto rotated = static_cast<std::uint8_t>(value >> rotate | value << (8 - rotate));
  unsigned mode = g[5] & 3;
  switch (mode) {
    case 0: {
      std::uint32_t setPlanes = fillPlanes(g[1]);
      data = (inAllPlanes(rotated) & ~setPlanes) | (fillPlanes(g[0]) & setPlanes);
      break;
    }
    case 1:
      data = regs_.latch;
      break;
    case 2:
      data = fillPlanes(value & 15);
      break;
    default:
      bitMask &= inAllPlanes(rotated);
      data = fillPlanes(g[0]);
      break;
  }
  if (mode != 1) {
    switch (g[3] >> 3 & 3) {
      case 1:
        data &= regs_.latch;
        break;
      case 2:
        data |= regs_.latch;
        break;
      case 3:
        data ^= regs_.latch;
        break;
      default:
        break;
    }
    data = (data & bitMask) | (regs_.latch & ~bitMask);
  }
  std::uint32_t planes = fillPlanes(regs_.sequencer[2]);
  std::uint32_t old = 0;
  std::memcpy(&old, video() + at, 4);
  data = (data & planes) | (old & ~planes);
  std::memcpy(video() + at, &data, 4);
  storedLocked(at);
}

}  // namespace lodge
