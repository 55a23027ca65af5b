// SPDX-License-Identifier: Apache-2.0
#include "device/ich9_lpc.h"

#include <array>
#include <span>

namespace lodge {

namespace {
constexpr unsigned kPmBase = 0x40, kAcpiControl = 0x44, kRoutesE = 0x68, kGeneralPm1 = 0xa0, kRootComplexBase = 0xf0;
constexpr std::uint8_t kSmiLock = 0x10, kNotRouted = 0x80;
}  // namespace

Ich9Lpc::Ich9Lpc(const IsaLines& lines, AcpiPm& pm)
    : Piix3({.vendor = 0x8086,
             .device = 0x2918,
             .revision = 2,
             .classCode = 0x060100,
             .subsystemVendor = 0x1af4,
             .subsystem = 0x1100},
            "ICH9 LPC bridge", lines),
      pm_(pm) {
  makeWritable(kPmBase, 0x80);
  makeWritable(kPmBase + 1, 0xff);
  makeWritable(kAcpiControl, 0x87);
  for (unsigned n = 0; n < 4; ++n) makeWritable(kRoutesE + n, 0x8f);
  for (unsigned n = 0x80; n < 0x98; ++n) makeWritable(n, 0xff);  // decode ranges
  makeWritable(kGeneralPm1, kSmiLock);
  makeWritable(kGeneralPm1 + 1, 0x02);
  makeWritable(kRootComplexBase, 0x01);
  for (unsigned n = 1; n < 4; ++n) makeWritable(kRootComplexBase + n, n == 1 ? 0xc0 : 0xff);
  loadResetValues();
}

void Ich9Lpc::loadResetValues() {
  constexpr std::array<std::uint8_t, 4> kIoBase{1, 0, 0, 0}, kRoutes{kNotRouted, kNotRouted, kNotRouted, kNotRouted};
  constexpr std::array<std::uint8_t, 24> kNothing{};
  storeConfig(kPmBase, kIoBase);
  storeConfig(kAcpiControl, std::span(kNothing).first(1));
  storeConfig(kRoutesE, kRoutes);
  storeConfig(0x80, kNothing);
  storeConfig(kGeneralPm1, std::span(kNothing).first(2));
  storeConfig(kRootComplexBase, std::span(kNothing).first(4));
  smiLocked_ = false;
  pm_.lockSmi(false);
}

void Ich9Lpc::reset() {
  Piix3::reset();
  loadResetValues();
}

void Ich9Lpc::configWritten(unsigned offset, unsigned size) {
  Piix3::configWritten(offset, size);
  if (offset > kGeneralPm1 || offset + size <= kGeneralPm1) return;
  // SMI_LOCK (13.8.1.1) stays until a reset, and with it GBL_SMI_EN.
  auto value = static_cast<std::uint8_t>(readConfig(kGeneralPm1, 1));
  if ((value & kSmiLock) != 0) smiLocked_ = true;
  if (!smiLocked_) return;
  value |= kSmiLock;
  storeConfig(kGeneralPm1, std::span(&value, 1));
  pm_.lockSmi(true);
}

}  // namespace lodge
