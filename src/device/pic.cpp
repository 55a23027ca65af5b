// SPDX-License-Identifier: Apache-2.0
#include "device/pic.h"

#include <bit>
#include <utility>

namespace lodge {

namespace {
constexpr unsigned kCascade = 2;
constexpr std::uint8_t kElcrWritable[2] = {0xf8, 0xde};  // timers, cascade, RTC and FPU are always edge-triggered

std::uint8_t bit(unsigned n) {
  return static_cast<std::uint8_t>(1u << n);
}

/// The bit of `set` that comes first in the order of priorities, 0..7 for the highest to the lowest; 8 if there is
/// none.
unsigned bestPriority(const Pic::Chip& chip, std::uint8_t set) {
  if (set == 0) return 8;
  auto rotated = std::rotr(set, (chip.lowestPriority + 1) & 7);
  return static_cast<unsigned>(std::countr_zero(rotated));
}
unsigned irqAt(const Pic::Chip& chip, unsigned priority) {
  return (priority + chip.lowestPriority + 1) & 7;
}

bool isLevelTriggered(const Pic::Chip& chip, unsigned irq) {
  return chip.levelMode || (chip.elcr >> irq & 1) != 0;
}

/// ICW1: back to the start; lines that are high and level-triggered still ask.
void beginInitialization(Pic::Chip& chip, std::uint8_t value) {
  Pic::Chip fresh;
  fresh.levels = chip.levels;
  fresh.elcr = chip.elcr;
  fresh.vectorBase = chip.vectorBase;
  fresh.needIcw4 = (value & 1) != 0;
  fresh.single = (value & 2) != 0;
  fresh.levelMode = (value & 8) != 0;
  fresh.irr = fresh.levels & (fresh.levelMode ? 0xff : fresh.elcr);
  fresh.initializing = 2;
  chip = fresh;
}

/// OCW2: EOIs and rotation. Bits 7..5: rotate, specific, EOI.
void endOfInterrupt(Pic::Chip& chip, std::uint8_t value) {
  unsigned irq = value & 7u;
  bool rotate = (value & 0x80) != 0;
  switch (value >> 5) {
    case 0:
      chip.rotateOnAutoEoi = false;
      return;
    case 4:
      chip.rotateOnAutoEoi = true;
      return;
    case 6:
      chip.lowestPriority = static_cast<std::uint8_t>(irq);
      return;
    case 2:
      return;
    case 1:
    case 5: {
      std::uint8_t candidates = chip.specialMask ? chip.isr & ~chip.imr : chip.isr;
      unsigned priority = bestPriority(chip, candidates);
      if (priority == 8) return;
      irq = irqAt(chip, priority);
      break;
    }
    default:
      break;
  }
  chip.isr &= static_cast<std::uint8_t>(~bit(irq));
  if (rotate) chip.lowestPriority = static_cast<std::uint8_t>(irq);
}

void writeCommand(Pic::Chip& chip, std::uint8_t value) {
  if ((value & 0x10) != 0) return beginInitialization(chip, value);
  if ((value & 0x08) == 0) return endOfInterrupt(chip, value);
  // OCW3
  if ((value & 0x40) != 0) chip.specialMask = (value & 0x20) != 0;
  if ((value & 0x04) != 0) chip.poll = true;
  if ((value & 0x02) != 0) chip.readIsr = (value & 0x01) != 0;
}
}  // namespace

Pic::Pic(InterruptLine& output) : output_(output) {
  for (unsigned irq = 0; irq < lines_.size(); ++irq) {
    lines_[irq].owner = this;
    lines_[irq].irq = irq;
  }
}

void Pic::reset() {
  std::lock_guard lock(mutex_);
  for (Chip& chip : chips_) {
    Chip fresh;
    fresh.levels = chip.levels;
    chip = fresh;
  }
  updateLocked();
}

int Pic::requestLocked(unsigned number) const {
  const Chip& chip = chips_[number];
  if (!chip.initialized) return -1;
  unsigned asking = bestPriority(chip, chip.irr & static_cast<std::uint8_t>(~chip.imr));
  if (asking == 8) return -1;
  std::uint8_t serving = chip.isr;
  if (chip.specialMask) serving &= static_cast<std::uint8_t>(~chip.imr);
  if (number == 0 && chip.specialFullyNested) serving &= static_cast<std::uint8_t>(~bit(kCascade));
  return asking < bestPriority(chip, serving) ? static_cast<int>(irqAt(chip, asking)) : -1;
}

/// The slave's INT is IR2 of the master, and the master's is the output.
void Pic::updateLocked() {
  Chip& master = chips_[0];
  if (requestLocked(1) >= 0 && !master.single) {
    master.irr |= bit(kCascade);
  } else {
    master.irr &= static_cast<std::uint8_t>(~bit(kCascade));
  }
  bool level = requestLocked(0) >= 0;
  if (level == outputLevel_) return;
  outputLevel_ = level;
  output_.set(level);
}

void Pic::setLine(unsigned irq, bool level) {
  if (irq == kCascade) return;
  std::lock_guard lock(mutex_);
  Chip& chip = chips_[irq / 8];
  std::uint8_t mask = bit(irq % 8);
  bool rising = level && (chip.levels & mask) == 0;
  chip.levels = static_cast<std::uint8_t>(level ? chip.levels | mask : chip.levels & ~mask);
  if (isLevelTriggered(chip, irq % 8)) {
    chip.irr = static_cast<std::uint8_t>(level ? chip.irr | mask : chip.irr & ~mask);
  } else if (rising) {
    chip.irr |= mask;  // latched until acknowledged, so that a pulse is enough
  }
  updateLocked();
}

/// INTA at one chip: its vector, and what that changes.
bool Pic::waits(unsigned irq) const {
  std::lock_guard lock(mutex_);
  const Chip& chip = chips_[irq / 8];
  bool open = irq < 8 || (chips_[0].imr >> kCascade & 1) == 0;
  return open && chip.initialized && ((chip.irr & ~chip.imr) >> (irq % 8) & 1) != 0;
}

std::uint8_t Pic::acknowledgeChipLocked(unsigned number) {
  Chip& chip = chips_[number];
  int request = requestLocked(number);
  if (request < 0) return chip.vectorBase + 7;  // spurious: nothing is in service
  auto irq = static_cast<unsigned>(request);
  if (!isLevelTriggered(chip, irq) && !(number == 0 && irq == kCascade))
    chip.irr &= static_cast<std::uint8_t>(~bit(irq));
  if (!chip.autoEoi) {
    chip.isr |= bit(irq);
  } else if (chip.rotateOnAutoEoi) {
    chip.lowestPriority = static_cast<std::uint8_t>(irq);
  }
  return static_cast<std::uint8_t>(chip.vectorBase + irq);
}

std::uint8_t Pic::acknowledgeInterrupt() {
  std::lock_guard lock(mutex_);
  bool cascaded = requestLocked(0) == static_cast<int>(kCascade) && !chips_[0].single;
  std::uint8_t vector = acknowledgeChipLocked(0);
  if (cascaded) vector = acknowledgeChipLocked(1);
  updateLocked();
  return vector;
}

std::uint8_t Pic::readPort(unsigned number, unsigned offset) {
  std::lock_guard lock(mutex_);
  Chip& chip = chips_[number];
  if (chip.poll) {
    chip.poll = false;
    int request = requestLocked(number);
    if (request < 0) return 0;
    acknowledgeChipLocked(number);
    updateLocked();
    return static_cast<std::uint8_t>(0x80 | request);
  }
  if ((offset & 1) != 0) return chip.imr;
  return chip.readIsr ? chip.isr : chip.irr;
}

void Pic::writePort(unsigned number, unsigned offset, std::uint8_t value) {
  std::lock_guard lock(mutex_);
  if ((offset & 1) != 0) {
    writeDataLocked(number, value);
  } else {
    writeCommand(chips_[number], value);
  }
  updateLocked();
}

void Pic::writeDataLocked(unsigned number, std::uint8_t value) {
  Chip& chip = chips_[number];
  auto next = [&chip](std::uint8_t icw) {
    chip.initializing = icw;
    if (icw == 0) chip.initialized = true;
  };
  switch (chip.initializing) {
    case 2:
      chip.vectorBase = value & 0xf8;
      return next(!chip.single ? 3 : chip.needIcw4 ? 4 : 0);
    case 3:
      return next(chip.needIcw4 ? 4 : 0);  // the wiring is what it is
    case 4:
      chip.autoEoi = (value & 0x02) != 0;
      chip.specialFullyNested = (value & 0x10) != 0;
      return next(0);
    default:
      chip.imr = value;
  }
}

std::uint8_t Pic::readElcr(unsigned chip) {
  std::lock_guard lock(mutex_);
  return chips_[chip & 1].elcr;
}

void Pic::writeElcr(unsigned number, std::uint8_t value) {
  std::lock_guard lock(mutex_);
  Chip& chip = chips_[number & 1];
  chip.elcr = value & kElcrWritable[number & 1];
  // What is level-triggered now follows its line.
  chip.irr = static_cast<std::uint8_t>((chip.irr & ~chip.elcr) | (chip.levels & chip.elcr));
  updateLocked();
}

Pic::State Pic::save() const {
  std::lock_guard lock(mutex_);
  return chips_;
}

Pic::State Pic::surrender() {
  std::lock_guard lock(mutex_);
  State state = std::exchange(chips_, {});
  updateLocked();
  return state;
}

void Pic::restore(const State& state) {
  std::lock_guard lock(mutex_);
  chips_ = state;
  updateLocked();
}

}  // namespace lodge
