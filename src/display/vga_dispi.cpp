// SPDX-License-Identifier: Apache-2.0
// The DISPI registers (Bochs's VBE interface, version 0xb0c5), and BAR 2, which has them and the VGA's.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "display/vga.h"
#include "display/vga_modes.h"

namespace lodge {

namespace {
constexpr unsigned kBarPorts = 0x400, kBarDispi = 0x500, kBarPortsEnd = 0x420, kBarDispiEnd = 0x520;
constexpr unsigned kBarFirstPort = 0x10;  ///< 0x3c0, from 0x3b0
}  // namespace

std::uint64_t Vga::readDispiPorts(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  if (size != 2) return 0xffff;
  return offset == 0 ? regs_.dispiIndex : readDispiLocked(regs_.dispiIndex);
}

void Vga::writeDispiPorts(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(mutex_);
  if (size != 2) return;
  auto word = static_cast<std::uint16_t>(value);
  if (offset == 0) {
    regs_.dispiIndex = word;
  } else {
    writeDispiLocked(regs_.dispiIndex, word);
  }
}

std::uint64_t Vga::readRegisterBar(std::uint64_t offset, unsigned size) {
  if (offset >= kBarPorts && offset + size <= kBarPortsEnd)
    return ports_.read(offset - kBarPorts + kBarFirstPort, size);
  if (offset >= kBarDispi && offset + size <= kBarDispiEnd && size == 2) {
    std::lock_guard lock(mutex_);
    return readDispiLocked(static_cast<unsigned>(offset - kBarDispi) / 2);
  }
  return ~std::uint64_t{0};
}

void Vga::writeRegisterBar(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (offset >= kBarPorts && offset + size <= kBarPortsEnd)
    return ports_.write(offset - kBarPorts + kBarFirstPort, size, value);
  if (offset >= kBarDispi && offset + size <= kBarDispiEnd && size == 2) {
    std::lock_guard lock(mutex_);
    writeDispiLocked(static_cast<unsigned>(offset - kBarDispi) / 2, static_cast<std::uint16_t>(value));
  }
}

std::uint16_t Vga::readDispiLocked(unsigned index) {
  if ((regs_.dispi[dispi::enable] & dispi::kCapabilities) != 0) {
    if (index == dispi::width) return kMaxWidth;
    if (index == dispi::height) return kMaxHeight;
    if (index == dispi::bitsPerPixel) return 32;
  }
  switch (index) {
    case dispi::id:
      return regs_.dispi[dispi::id] == 0 ? dispi::kVersion : regs_.dispi[dispi::id];
    case dispi::memory64k:
      return static_cast<std::uint16_t>(kMemoryBytes >> 16);
    default:
      return index < regs_.dispi.size() ? regs_.dispi[index] : 0;
  }
}

void Vga::writeDispiLocked(unsigned index, std::uint16_t value) {
  auto& d = regs_.dispi;
  changed_ = true;
  switch (index) {
    case dispi::id:
      if (value >= 0xb0c0 && value <= dispi::kVersion) d[index] = value;
      return;
    case dispi::width:
      if (value != 0 && value <= kMaxWidth && value % 8 == 0) d[index] = value;
      return;
    case dispi::height:
      if (value != 0 && value <= kMaxHeight) d[index] = value;
      return;
    case dispi::bitsPerPixel:
      if (value == 0) value = 8;
      if (value == 4 || value == 8 || value == 15 || value == 16 || value == 24 || value == 32) d[index] = value;
      return;
    case dispi::enable:
      return enableDispiLocked(value);
    case dispi::bank:
      d[index] = value & 0xff;
      return;
    case dispi::virtualWidth: {
      Pitch pitch(value, d[dispi::bitsPerPixel]);
      if (!dispiOnLocked() || value < d[dispi::width] || value > 0x4000 || pitch.bytes == 0) return;
      std::uint64_t lines = kMemoryBytes / pitch.bytes;
      if (lines < d[dispi::height]) return;
      d[index] = value;
      d[dispi::virtualHeight] = static_cast<std::uint16_t>(std::min<std::uint64_t>(lines, 0xffff));
      d[dispi::xOffset] = d[dispi::yOffset] = 0;
      return;
    }
    case dispi::xOffset:
    case dispi::yOffset:
      d[index] = value;
      return;
    default:
      return;
  }
}

void Vga::enableDispiLocked(std::uint16_t value) {
  auto& d = regs_.dispi;
  bool turnedOn = (value & dispi::kEnabled) != 0 && !dispiOnLocked();
  d[dispi::enable] = value;
  d[dispi::bank] = 0;
  if (!turnedOn) return;
  if (d[dispi::width] == 0) d[dispi::width] = 640;
  if (d[dispi::height] == 0) d[dispi::height] = 480;
  if (d[dispi::bitsPerPixel] == 0) d[dispi::bitsPerPixel] = 8;
  d[dispi::virtualWidth] = d[dispi::width];
  d[dispi::xOffset] = d[dispi::yOffset] = 0;
  Pitch pitch(d[dispi::width], d[dispi::bitsPerPixel]);
  d[dispi::virtualHeight] = static_cast<std::uint16_t>(std::min<std::uint64_t>(kMemoryBytes / pitch.bytes, 0xffff));
  if ((value & dispi::kNoClear) == 0) {
    std::uint64_t bytes = std::min<std::uint64_t>(std::uint64_t{pitch.bytes} * d[dispi::height], kMemoryBytes);
    std::memset(video(), 0, bytes);
    memory_.writtenAt(memory_.videoOffset(), bytes);
  }
}

}  // namespace lodge
