// SPDX-License-Identifier: Apache-2.0
#include "device/dma_controller.h"

#include <algorithm>

namespace lodge {

namespace {
constexpr unsigned kVerify = 0, kWriteMemory = 1, kReadMemory = 2;  // mode, bits 3:2
constexpr std::uint8_t kDown = 0x20, kAutoInit = 0x10, kDisabled = 0x04;

unsigned kindOf(std::uint8_t mode) {
  return mode >> 2 & 3;
}
}  // namespace

Status DmaController::plugPorts(IoBus& ports) {
  if (Status s = ports.add(kFirstPort, kFirstBytes, chips_[0], "DMA controller"); !s) return s;
  if (Status s = ports.add(kSecondPort, kSecondBytes, chips_[1], "second DMA controller"); !s) return s;
  return ports.add(kPagePort, kPageBytes, pages_, "DMA page registers");
}

void DmaController::reset() {
  std::lock_guard lock(mutex_);
  for (Chip& chip : chips_) {
    chip.clearLocked();
    chip.channels = {};
  }
  pages_.values = {};
}

std::uint64_t DmaController::Chip::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(owner->mutex_);
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n) {
    value |= std::uint64_t{readLocked(static_cast<unsigned>(offset + n) / step)} << (8 * n);
  }
  return value;
}

void DmaController::Chip::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(owner->mutex_);
  for (unsigned n = 0; n < size; ++n) {
    unsigned at = static_cast<unsigned>(offset) + n;
    if (at % step == 0) writeLocked(at / step, static_cast<std::uint8_t>(value >> (8 * n)));
  }
}

std::uint8_t DmaController::Chip::readLocked(unsigned reg) {
  if (reg < 8) {
    const Channel& c = channels[reg / 2];
    std::uint16_t value = reg % 2 == 0 ? c.address : c.count;
    high = !high;
    return static_cast<std::uint8_t>(high ? value : value >> 8);
  }
  if (reg != 8) return 0;  // the temporary register is for transfers in memory
  std::uint8_t value = status;
  status &= 0xf0;  // terminal counts are told once
  return value;
}

void DmaController::Chip::writeLocked(unsigned reg, std::uint8_t value) {
  if (reg < 8) {
    Channel& c = channels[reg / 2];
    std::uint16_t& base = reg % 2 == 0 ? c.baseAddress : c.baseCount;
    base = high ? static_cast<std::uint16_t>((base & 0x00ff) | value << 8)
                : static_cast<std::uint16_t>((base & 0xff00) | value);
    (reg % 2 == 0 ? c.address : c.count) = base;
    high = !high;
    return;
  }
  std::uint8_t bit = static_cast<std::uint8_t>(1u << (value & 3));
  switch (reg) {
    case 8:
      command = value;
      break;
    case 10:
      masks = (value & 4) != 0 ? masks | bit : masks & ~bit;
      break;
    case 11:
      channels[value & 3].mode = value;
      break;
    case 12:
      high = false;
      break;
    case 13:
      clearLocked();
      break;
    case 14:
      masks = 0;
      break;
    case 15:
      masks = value & 0xf;
      break;
    default:
      break;  // requests by software are for transfers in memory
  }
}

void DmaController::Chip::clearLocked() {
  command = status = 0;
  masks = 0xf;
  high = false;
}

// Which channel a page register belongs to is the PC's wiring; the others are memory.
std::uint64_t DmaController::Pages::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(owner->mutex_);
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n) value |= std::uint64_t{values[offset + n]} << (8 * n);
  return value;
}

void DmaController::Pages::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  constexpr std::array<std::uint8_t, 4> kFirst = {7, 3, 1, 2}, kSecond = {15, 11, 9, 10};
  std::lock_guard lock(owner->mutex_);
  for (unsigned n = 0; n < size; ++n) values[offset + n] = static_cast<std::uint8_t>(value >> (8 * n));
  for (unsigned channel = 0; channel < 4; ++channel) {
    owner->chips_[0].channels[channel].page = values[kFirst[channel]];
    owner->chips_[1].channels[channel].page = values[kSecond[channel]];
  }
}

bool DmaController::readyLocked(unsigned channel, Direction direction) const {
  const Chip& chip = chips_[0];
  unsigned kind = kindOf(chip.channels[channel].mode);
  bool right = kind == kVerify || kind == (direction == Direction::toMemory ? kWriteMemory : kReadMemory);
  return right && (chip.command & kDisabled) == 0 && (chip.masks >> channel & 1) == 0;
}

std::size_t DmaController::remaining(unsigned channel, Direction direction) const {
  std::lock_guard lock(mutex_);
  return readyLocked(channel, direction) ? chips_[0].channels[channel].count + std::size_t{1} : 0;
}

DmaController::Moved DmaController::transfer(unsigned channel, std::span<std::uint8_t> data, Direction direction) {
  std::lock_guard lock(mutex_);
  if (data.empty() || !readyLocked(channel, direction)) return {};
  Chip& chip = chips_[0];
  Channel& c = chip.channels[channel];
  Moved moved{std::min(data.size(), c.count + std::size_t{1}), false};
  moved.ended = moved.bytes == c.count + std::size_t{1};
  moveLocked(c, data.first(moved.bytes), direction);
  auto distance = static_cast<std::uint16_t>(moved.bytes);
  c.address = static_cast<std::uint16_t>((c.mode & kDown) != 0 ? c.address - distance : c.address + distance);
  c.count = static_cast<std::uint16_t>(c.count - distance);
  if (!moved.ended) return moved;
  chip.status |= static_cast<std::uint8_t>(1u << channel);
  if ((c.mode & kAutoInit) != 0) {
    c.address = c.baseAddress;
    c.count = c.baseCount;
  } else {
    chip.masks |= static_cast<std::uint8_t>(1u << channel);
  }
  return moved;
}

// The address counter has 16 bits: at the page's end it begins again.
void DmaController::moveLocked(Channel& c, std::span<std::uint8_t> data, Direction direction) {
  bool down = (c.mode & kDown) != 0, verify = kindOf(c.mode) == kVerify;
  std::uint16_t address = c.address;
  while (!data.empty()) {
    std::size_t run = down ? 1 : std::min<std::size_t>(data.size(), 0x10000u - address);
    Gpa at{std::uint64_t{c.page} << 16 | address};
    auto bytes = std::as_writable_bytes(data.first(run));
    if (verify) {
      if (direction == Direction::fromMemory) std::fill(bytes.begin(), bytes.end(), std::byte{0});
    } else if (direction == Direction::toMemory) {
      (void)memory_.write(at, bytes);
    } else if (!memory_.read(at, bytes)) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
    }
    data = data.subspan(run);
    address = static_cast<std::uint16_t>(down ? address - 1 : address + run);
  }
}

}  // namespace lodge
