// SPDX-License-Identifier: Apache-2.0
#include "device/parallel_flash.h"

#include <bit>
#include <cstring>
#include <utility>

namespace lodge {

namespace {
// Commands (data sheet, table 4).
enum Command : std::uint8_t {
  lockConfirm = 0x01,
  program = 0x10,
  blockErase = 0x20,
  lockDown = 0x2f,
  programAlternate = 0x40,
  clearStatus = 0x50,
  lockSetup = 0x60,
  readStatus = 0x70,
  readIdentifier = 0x90,
  readQuery = 0x98,
  suspend = 0xb0,
  confirm = 0xd0,
  writeBuffer = 0xe8,
  readArray = 0xff,
};
// Status register (table 9).
constexpr std::uint8_t kReady = 0x80, kEraseError = 0x20, kProgramError = 0x10, kLocked = 0x02;
constexpr std::uint8_t kManufacturer = 0x89, kDevice = 0x18;

/// What the query command shows (JESD68.01, 2.4 and on).
std::array<std::uint8_t, 0x40> queryTable(std::uint64_t bytes) {
  std::array<std::uint8_t, 0x40> t{};
  auto put = [&t](unsigned at, std::initializer_list<std::uint8_t> values) {
    for (std::uint8_t value : values) t[at++] = value;
  };
  put(0x10, {'Q', 'R', 'Y', 1, 0, 0x31, 0});               // Intel's extended command set, its table at 0x31
  put(0x1b, {0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0});  // voltages; times as powers of two
  std::uint64_t blocks = bytes / ParallelFlash::kBlock;
  auto low = [](std::uint64_t v) { return static_cast<std::uint8_t>(v); };
  put(0x27, {low(static_cast<std::uint64_t>(std::bit_width(bytes - 1))), 0, 0});
  put(0x2a, {low(static_cast<std::uint64_t>(std::bit_width(ParallelFlash::kBufferBytes - 1u))), 0, 1});
  put(0x2d,
      {low(blocks - 1), low((blocks - 1) >> 8), low(ParallelFlash::kBlock >> 8), low(ParallelFlash::kBlock >> 16)});
  put(0x31, {'P', 'R', 'I', '1', '0'});
  return t;
}
}  // namespace

ParallelFlash::ParallelFlash(Setup setup) : setup_(std::move(setup)), query_(queryTable(setup_.bytes)) {
  std::lock_guard lock(mutex_);
  placeLocked();
}

void ParallelFlash::reset() {
  std::lock_guard lock(mutex_);
  state_ = {};
  placeLocked();
}

/// The contents are in the memory map exactly while reads give them.
void ParallelFlash::placeLocked() {
  bool wanted = state_.reads == State::Reads::array;
  if (wanted == mapped_) return;
  mapped_ = wanted;
  if (wanted) {
    setup_.memory.mapRegion(setup_.region, setup_.base, setup_.offset, setup_.bytes);
  } else {
    setup_.memory.unmapRegion(setup_.region);
  }
  setup_.memory.mapChanged();
}

std::uint8_t ParallelFlash::readByteLocked(std::uint64_t offset) const {
  switch (state_.reads) {
    case State::Reads::status:
      return state_.status;
    case State::Reads::identifier:
      // Of each block: manufacturer, device, lock configuration.
      return offset % kBlock == 0 ? kManufacturer : offset % kBlock == 1 ? kDevice : 0;
    case State::Reads::query:
      return offset < query_.size() ? query_[offset] : 0;
    case State::Reads::array:
      break;
  }
  return contents()[offset];
}

std::uint64_t ParallelFlash::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size && offset + n < setup_.bytes; ++n) {
    value |= std::uint64_t{readByteLocked(offset + n)} << (8 * n);
  }
  return value;
}

void ParallelFlash::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(mutex_);
  if (offset >= setup_.bytes || size > setup_.bytes - offset) return;
  if (state_.expects == State::Expects::command) {
    commandLocked(offset, static_cast<std::uint8_t>(value));
  } else {
    continueLocked(offset, size, value);
  }
  placeLocked();
}

void ParallelFlash::commandLocked(std::uint64_t offset, std::uint8_t command) {
  using Reads = State::Reads;
  using Expects = State::Expects;
  auto begin = [this](Expects expects) {
    state_.expects = expects;
    state_.reads = Reads::status;
    state_.status |= kReady;
  };
  switch (command) {
    case program:
    case programAlternate:
      return begin(Expects::data);
    case blockErase:
      return begin(Expects::eraseConfirm);
    case lockSetup:
      return begin(Expects::lock);
    case writeBuffer:
      state_.bufferStart = offset / kBufferBytes * kBufferBytes;
      return begin(Expects::bufferCount);
    case clearStatus:
      state_.status = 0;
      state_.reads = Reads::array;
      return;
    case readStatus:
      state_.reads = Reads::status;
      return;
    case readIdentifier:
      state_.reads = Reads::identifier;
      return;
    case readQuery:
      state_.reads = Reads::query;
      return;
    case suspend:
    case confirm:
      return;  // nothing takes time here: there is nothing to suspend or to resume
    case readArray:
    default:
      state_.reads = Reads::array;
      return;
  }
}

/// The second and later writes of a command.
void ParallelFlash::continueLocked(std::uint64_t offset, unsigned size, std::uint64_t value) {
  using Expects = State::Expects;
  auto command = static_cast<std::uint8_t>(value);
  constexpr std::uint8_t kSequenceError = kEraseError | kProgramError;
  switch (state_.expects) {
    case Expects::data:
      for (unsigned n = 0; n < size; ++n) programLocked(offset + n, static_cast<std::uint8_t>(value >> (8 * n)));
      return endLocked(setup_.readOnly ? kProgramError | kLocked : 0);
    case Expects::eraseConfirm:
      if (command != confirm) return endLocked(kSequenceError);
      eraseLocked(offset);
      return endLocked(setup_.readOnly ? kEraseError | kLocked : 0);
    case Expects::lock:
      return endLocked(command == lockConfirm || command == lockDown || command == confirm ? 0 : kSequenceError);
    case Expects::bufferCount:
      state_.bufferLeft = (command % kBufferBytes) + 1;
      state_.buffer.clear();
      state_.expects = Expects::bufferData;
      return;
    case Expects::bufferData:
      return takeBufferLocked(offset, size, value);
    case Expects::bufferConfirm:
      if (command != confirm) return endLocked(kSequenceError);
      for (const auto& [where, byte] : state_.buffer) programLocked(where, byte);
      return endLocked(setup_.readOnly ? kProgramError | kLocked : 0);
    case Expects::command:
      return;
  }
}

void ParallelFlash::takeBufferLocked(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned n = 0; n < size && state_.bufferLeft != 0; ++n, --state_.bufferLeft) {
    // What is outside of the buffer's part of the array ends the sequence (data sheet, 5.3).
    if (offset + n - state_.bufferStart >= kBufferBytes) return endLocked(kEraseError | kProgramError);
    state_.buffer.emplace_back(offset + n, static_cast<std::uint8_t>(value >> (8 * n)));
  }
  if (state_.bufferLeft == 0) state_.expects = State::Expects::bufferConfirm;
}

/// Programming clears bits; only erasing sets them.
void ParallelFlash::programLocked(std::uint64_t offset, std::uint8_t value) {
  if (setup_.readOnly) return;
  contents()[offset] &= value;
  changedLocked(offset, 1);
}

void ParallelFlash::eraseLocked(std::uint64_t offset) {
  if (setup_.readOnly) return;
  std::uint64_t block = offset / kBlock * kBlock;
  std::memset(contents() + block, 0xff, kBlock);
  changedLocked(block, kBlock);
}

void ParallelFlash::endLocked(std::uint8_t errors) {
  state_.status = static_cast<std::uint8_t>(state_.status | kReady | errors);
  state_.reads = State::Reads::status;
  state_.expects = State::Expects::command;
  state_.buffer.clear();
}

void ParallelFlash::changedLocked(std::uint64_t offset, std::uint64_t length) {
  setup_.memory.writtenAt(setup_.offset + offset, length);
  if (setup_.store) setup_.store(offset, std::as_bytes(std::span(contents() + offset, length)));
}

}  // namespace lodge
