// SPDX-License-Identifier: Apache-2.0
#include "device/piix3.h"

namespace lodge {

namespace {
constexpr unsigned kRoutes = 0x60, kTopOfMemory = 0x69;
constexpr std::uint8_t kNotRouted = 0x80;
constexpr std::array<std::uint8_t, 4> kRoutesAtReset{kNotRouted, kNotRouted, kNotRouted, kNotRouted};
}  // namespace

Piix3::Piix3(const PciIdentity& identity, std::string name, const IsaLines& lines)
    : PciFunction(identity, std::move(name)), lines_(lines) {
  for (unsigned n = 0; n < pirqs_.size(); ++n) {
    pirqs_[n].owner = this;
    pirqs_[n].number = n;
    makeWritable(kRoutes + n, 0x8f);
  }
  storeConfig(kRoutes, kRoutesAtReset);
}

Piix3::Piix3(const IsaLines& lines)
    : Piix3({.vendor = 0x8086,
             .device = 0x7000,
             .revision = 0,
             .classCode = 0x060100,
             .subsystemVendor = 0x1af4,
             .subsystem = 0x1100},
            "PIIX3 ISA bridge", lines) {
  // Registers that firmware sets and reads back: chip selects, memory top, interrupt moderation.
  for (unsigned offset : {0x4cu, 0x4eu, 0x4fu, kTopOfMemory, 0x6au, 0x70u, 0x71u, 0x76u, 0x77u, 0x82u}) {
    makeWritable(offset, 0xff);
  }
}

void Piix3::reset() {
  PciFunction::reset();
  storeConfig(kRoutes, kRoutesAtReset);
  loadRoutes();
}

void Piix3::configWritten(unsigned offset, unsigned size) {
  if (offset < kRoutes + 4 && offset + size > kRoutes) loadRoutes();
}

void Piix3::loadRoutes() {
  std::uint32_t value = readConfig(kRoutes, 4);
  std::lock_guard lock(mutex_);
  for (unsigned n = 0; n < routes_.size(); ++n) routes_[n] = static_cast<std::uint8_t>(value >> (8 * n));
  updateLocked();
}

void Piix3::setPirq(unsigned number, bool level) {
  std::lock_guard lock(mutex_);
  asking_ = level ? asking_ | 1u << number : asking_ & ~(1u << number);
  updateLocked();
}

void Piix3::updateLocked() {
  std::uint16_t wanted = 0;
  for (unsigned n = 0; n < routes_.size(); ++n) {
    if ((asking_ >> n & 1) != 0 && (routes_[n] & kNotRouted) == 0) {
      wanted = static_cast<std::uint16_t>(wanted | 1u << (routes_[n] & 15));
    }
  }
  std::uint16_t changed = wanted ^ driven_;
  driven_ = wanted;
  for (unsigned irq = 0; irq < lines_.size(); ++irq) {
    if ((changed >> irq & 1) != 0 && lines_[irq]) lines_[irq]->set((wanted >> irq & 1) != 0);
  }
}

}  // namespace lodge
