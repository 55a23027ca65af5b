// SPDX-License-Identifier: Apache-2.0
#include "storage/ahci_controller.h"

#include "storage/ahci_defs.h"

namespace lodge {

using namespace ahci;

namespace {
constexpr PciIdentity kIdentity{0x8086, 0x2922, 2, 0x010601, 0x1af4, 0x1100};
// 64-bit addresses, queuing, command list override, AHCI only, generation 3, 32 slots.
constexpr std::uint32_t kCap =
    1u << 31 | 1u << 30 | 1u << 24 | 3u << 20 | 1u << 18 | 31u << 8 | (AhciController::kPorts - 1);
constexpr std::uint32_t kVersion = 0x00010301, kPortsThere = (1u << AhciController::kPorts) - 1;
constexpr unsigned kBarBytes = 0x1000, kPortControl = 0x92;
}  // namespace

AhciController::AhciController(GuestMemory& memory, std::string name) : PciFunction(kIdentity, std::move(name)) {
  for (auto& port : ports_) port = std::make_unique<AhciPort>(memory, [this] { update(); });
  addBar(5, BarKind::memory32, kBarBytes, *this);
  useIntx();
  // Port control and status (ICH9 data sheet, 15.1.32), which drivers set to the ports that they use.
  makeWritable(kPortControl, 0x3f);
}

void AhciController::reset() {
  for (auto& port : ports_) port->reset();
  {
    std::lock_guard lock(mutex_);
    interrupts_ = false;
    is_ = 0;
  }
  update();
  PciFunction::reset();
}

std::uint64_t AhciController::read(std::uint64_t offset, unsigned size) {
  auto at = static_cast<unsigned>(offset);
  if (size == 8) return readRegister(at & ~3u) | std::uint64_t{readRegister((at & ~3u) + 4)} << 32;
  std::uint64_t value = readRegister(at & ~3u) >> (8 * (at % 4));
  return size == 4 ? value : value & ((1u << (8 * size)) - 1);
}

// The registers take double words (3); what is smaller is refused, what is wider is two of them.
void AhciController::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (size < 4 || offset % 4 != 0) return;
  for (unsigned half = 0; half < size / 4; ++half) {
    writeRegister(static_cast<unsigned>(offset) + 4 * half, static_cast<std::uint32_t>(value >> (32 * half)));
  }
}

std::uint32_t AhciController::readRegister(unsigned offset) {
  if (offset >= host::ports) {
    unsigned number = (offset - host::ports) / AhciPort::kBytes;
    return number < kPorts ? ports_[number]->read((offset - host::ports) % AhciPort::kBytes) : 0;
  }
  std::lock_guard lock(mutex_);
  switch (offset) {
    case host::cap:
      return kCap;
    case host::ghc:
      return kAhciEnable | (interrupts_ ? kInterruptEnable : 0);
    case host::is:
      return is_;
    case host::pi:
      return kPortsThere;
    case host::vs:
      return kVersion;
    default:
      return 0;
  }
}

void AhciController::writeRegister(unsigned offset, std::uint32_t value) {
  if (offset >= host::ports) {
    unsigned number = (offset - host::ports) / AhciPort::kBytes;
    if (number < kPorts) ports_[number]->write((offset - host::ports) % AhciPort::kBytes, value);
    return;
  }
  if (offset == host::ghc && (value & kHbaReset) != 0) {
    for (auto& port : ports_) port->reset();
  }
  {
    std::lock_guard lock(mutex_);
    if (offset == host::ghc) {
      interrupts_ = (value & kInterruptEnable) != 0 && (value & kHbaReset) == 0;
      if ((value & kHbaReset) != 0) is_ = 0;
    }
    if (offset == host::is) is_ &= ~value;
  }
  update();
}

// A port's bit in IS is set as long as the port has something to say (5.6.2).
void AhciController::update() {
  std::lock_guard lock(mutex_);
  for (unsigned number = 0; number < kPorts; ++number) {
    if (ports_[number] && ports_[number]->pending()) is_ |= 1u << number;
  }
  setIntx(interrupts_ && is_ != 0);
}

}  // namespace lodge
