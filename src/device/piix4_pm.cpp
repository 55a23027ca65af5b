// SPDX-License-Identifier: Apache-2.0
#include "device/piix4_pm.h"

#include <array>
#include <span>

#include "device/acpi_pm.h"

namespace lodge {

namespace {
constexpr unsigned kPmBase = 0x40, kDeviceActivityB = 0x5b, kPmMisc = 0x80, kSmbusBase = 0x90, kSmbusHost = 0xd2;
constexpr std::uint8_t kApmcEnabled = 0x02, kPmIoEnable = 0x01;
}  // namespace

Piix4Pm::Piix4Pm(IoBus& ports, IoDevice& registers, std::uint16_t usualBase)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x7113,
                   .revision = 3,
                   .classCode = 0x068000,
                   .subsystemVendor = 0x1af4,
                   .subsystem = 0x1100},
                  "PIIX4 power management"),
      ports_(ports),
      registers_(registers),
      usualBase_(usualBase) {
  makeWritable(kPmBase, 0xc0);
  makeWritable(kPmBase + 1, 0xff);
  for (unsigned n = 0; n < 4; ++n) makeWritable(0x58 + n, 0xff);
  makeWritable(kPmMisc, kPmIoEnable);
  makeWritable(kSmbusBase, 0xf0);
  makeWritable(kSmbusBase + 1, 0xff);
  makeWritable(kSmbusHost, 0x0f);
  loadResetValues();
}

Piix4Pm::~Piix4Pm() {
  if (placed_) ports_.remove(*placed_);
}

void Piix4Pm::loadResetValues() {
  constexpr std::array<std::uint8_t, 4> kIoBase{1, 0, 0, 0}, kActivity{0, 0, 0, kApmcEnabled};
  constexpr std::uint8_t kZero = 0;
  storeConfig(kPmBase, kIoBase);
  storeConfig(kSmbusBase, kIoBase);
  storeConfig(kDeviceActivityB - 3, kActivity);
  storeConfig(kPmMisc, std::span(&kZero, 1));
  storeConfig(kSmbusHost, std::span(&kZero, 1));
}

void Piix4Pm::reset() {
  PciFunction::reset();
  loadResetValues();
  place();
}

void Piix4Pm::configWritten(unsigned offset, unsigned size) {
  if (offset <= kPmBase + 1 && offset + size > kPmBase) place();
  if (offset <= kPmMisc && offset + size > kPmMisc) place();
}

void Piix4Pm::place() {
  std::optional<std::uint16_t> wanted;
  auto base = static_cast<std::uint16_t>(readConfig(kPmBase, 2) & 0xffc0);
  if ((readConfig(kPmMisc, 1) & kPmIoEnable) != 0 && base != 0 && base != usualBase_) wanted = base;
  if (wanted == placed_) return;
  if (placed_) ports_.remove(*placed_);
  placed_.reset();
  // Where another device answers already, it goes on doing so.
  if (wanted && ports_.add(*wanted, AcpiPm::kLength, registers_, "PIIX4 power management")) placed_ = wanted;
}

std::uint64_t Piix4Pm::Apm::read(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size && offset + n < kApmBytes; ++n) {
    value |= std::uint64_t{bytes[offset + n].load(std::memory_order_relaxed)} << (8 * n);
  }
  return value;
}

void Piix4Pm::Apm::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned n = 0; n < size && offset + n < kApmBytes; ++n) {
    bytes[offset + n].store(static_cast<std::uint8_t>(value >> (8 * n)), std::memory_order_relaxed);
  }
}

}  // namespace lodge
