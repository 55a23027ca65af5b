// SPDX-License-Identifier: Apache-2.0
#include "device/i440fx.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace lodge {

namespace {
constexpr unsigned kPam0 = 0x59, kPamRegisters = 7, kSmram = 0x72;
constexpr unsigned kReadRam = 1, kWriteRam = 2;
constexpr std::uint8_t kSmramReset = 0x02;  // the compatible SMRAM space lies at 0xa0000
constexpr std::uint64_t kPart = 0x4000;
}  // namespace

I440Fx::I440Fx(GuestMemory& memory, std::uint64_t romBytes)
    // The subsystem is how firmware made for virtual machines knows that it is in one.
    : PciFunction({.vendor = 0x8086,
                   .device = 0x1237,
                   .revision = 2,
                   .classCode = 0x060000,
                   .subsystemVendor = 0x1af4,
                   .subsystem = 0x1100},
                  "i440FX host bridge"),
      memory_(memory),
      romBytes_(romBytes) {
  for (unsigned n = 0; n < kPamRegisters; ++n) makeWritable(kPam0 + n, n == 0 ? 0x30 : 0x33);
  makeWritable(kSmram, 0x7f);
  std::uint8_t smram = kSmramReset;
  storeConfig(kSmram, std::span(&smram, 1));
  memory_.useShadowMap();
  applyPam();
}

void I440Fx::reset() {
  PciFunction::reset();
  std::array<std::uint8_t, kPamRegisters> pams{};
  storeConfig(kPam0, pams);
  storeConfig(kSmram, std::span(&kSmramReset, 1));
  applyPam();
}

void I440Fx::configWritten(unsigned offset, unsigned size) {
  if (offset < kPam0 + kPamRegisters && offset + size > kPam0) applyPam();
}

unsigned I440Fx::pam(unsigned part) {
  if (part >= 12) return readConfig(kPam0, 1) >> 4 & 3;
  return readConfig(kPam0 + 1 + part / 2, 1) >> (4 * (part % 2)) & 3;
}

void I440Fx::applyPam() {
  for (std::uint64_t at = GuestMemory::kShadowStart; at < kShadowBase; at += kPageSize) {
    memory_.setShadowPage(Gpa{at}, GuestMemory::kNoOffset, false);
  }
  std::uint64_t romBelow = std::min<std::uint64_t>(romBytes_, 0x20000);
  std::uint64_t romStart = GuestMemory::kShadowEnd - romBelow;
  for (std::uint64_t at = kShadowBase; at < GuestMemory::kShadowEnd; at += kPageSize) {
    unsigned bits = pam(static_cast<unsigned>((at - kShadowBase) / kPart));
    if ((bits & kReadRam) != 0) {
      memory_.setShadowPage(Gpa{at}, at, (bits & kWriteRam) != 0);
    } else if (at >= romStart) {
      memory_.setShadowPage(Gpa{at}, memory_.romOffset() + romBytes_ - romBelow + (at - romStart), false);
    } else {
      memory_.setShadowPage(Gpa{at}, GuestMemory::kNoOffset, false);
    }
  }
  memory_.mapChanged();
}

// Reads that go to ROM and writes that go to RAM: how firmware is copied into its own shadow.
void I440Fx::writeShadow(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if ((pam(static_cast<unsigned>(offset / kPart)) & kWriteRam) == 0) return;
  std::uint64_t at = kShadowBase + offset;
  if (size > 8 || at + size > memory_.lowSize()) return;
  std::memcpy(memory_.deviceView() + at, &value, size);
  memory_.writtenAt(at, size);
}

}  // namespace lodge
