// SPDX-License-Identifier: Apache-2.0
#include "device/q35_mch.h"

#include <array>
#include <span>
#include <utility>

namespace lodge {

namespace {
constexpr unsigned kExtendedTseg = 0x50, kPciExpressBase = 0x60, kPam0 = 0x90, kSmram = 0x9d, kExtendedSmram = 0x9e;
// SMRAM (5.1.30) and ESMRAMC (5.1.31).
constexpr std::uint8_t kSmramReset = 0x02, kSmramLock = 0x10, kSmramEnable = 0x08, kSmramOpen = 0x40;
constexpr std::uint8_t kExtendedReset = 0x38, kTsegEnable = 0x01;
constexpr std::uint16_t kExtendedTsegMegabytes = 16;
// PCIEXBAR (5.1.17): enable, length, and the base, whose lowest bits depend on the length.
constexpr std::uint64_t kBarEnable = 1, kBarLength = 6;

bool touches(unsigned offset, unsigned size, unsigned first, unsigned count) {
  return offset < first + count && offset + size > first;
}
}  // namespace

Q35Mch::Q35Mch(GuestMemory& memory, std::uint64_t romBytes, bool smm, PlacePciExpress onPciExpress)
    : PamBridge({.vendor = 0x8086,
                 .device = 0x29c0,
                 .revision = 0,
                 .classCode = 0x060000,
                 .subsystemVendor = 0x1af4,
                 .subsystem = 0x1100},
                "Q35 host bridge", {.pam0 = kPam0, .smram = kSmram, .opensSmram = false}, memory, romBytes),
      smm_(smm),
      onPciExpress_(std::move(onPciExpress)) {
  makeWritable(kPciExpressBase, 0x07);
  makeWritable(kPciExpressBase + 3, 0xfc);
  makeWritable(kPciExpressBase + 4, 0x0f);
  makeWritable(kExtendedTseg, 0xff);
  makeWritable(kExtendedTseg + 1, 0xff);
  if (smm_) makeWritable(kExtendedSmram, 0x07);
  // What firmware writes about the memory map for others to read: graphics bases, TSEG's base, top of memory.
  for (unsigned offset = 0xa0; offset < 0xb2; ++offset) makeWritable(offset, 0xff);
  loadResetValues();
}

void Q35Mch::loadResetValues() {
  constexpr std::array<std::uint8_t, 8> kNoBase{};
  constexpr std::array<std::uint8_t, 2> kMegabytes{kExtendedTsegMegabytes, 0};
  storeConfig(kPciExpressBase, kNoBase);
  storeConfig(kExtendedTseg, kMegabytes);
  storeConfig(kSmram, std::span(&kSmramReset, 1));
  storeConfig(kExtendedSmram, std::span(&kExtendedReset, 1));
  locked_ = false;
}

void Q35Mch::reset() {
  PamBridge::reset();
  loadResetValues();
  placePciExpress();
  placeSmram();
}

void Q35Mch::configWritten(unsigned offset, unsigned size) {
  PamBridge::configWritten(offset, size);
  if (touches(offset, size, kPciExpressBase, 8)) placePciExpress();
  if (touches(offset, size, kExtendedTseg, 2)) {
    // A query, whatever was written.
    constexpr std::array<std::uint8_t, 2> kMegabytes{kExtendedTsegMegabytes, 0};
    storeConfig(kExtendedTseg, kMegabytes);
  }
  if (touches(offset, size, kSmram, 2)) placeSmram();
}

void Q35Mch::placePciExpress() {
  std::uint64_t value = readConfig(kPciExpressBase, 4) | std::uint64_t{readConfig(kPciExpressBase + 4, 4)} << 32;
  std::uint64_t length = 256_MiB >> ((value & kBarLength) >> 1);
  bool enabled = (value & kBarEnable) != 0 && (value & kBarLength) != kBarLength;
  std::uint64_t base = (value & 0xf'fc00'0000) / length * length;
  onPciExpress_(enabled && base != 0 ? std::optional(base) : std::nullopt, static_cast<unsigned>(length / 1_MiB));
}

void Q35Mch::placeSmram() {
  auto smram = static_cast<std::uint8_t>(readConfig(kSmram, 1));
  auto extended = static_cast<std::uint8_t>(readConfig(kExtendedSmram, 1));
  if (locked_) {
    smram = smramKept_;
    extended = tsegKept_;
  } else if ((smram & kSmramLock) != 0) {
    // From now on both registers are as they are, closed, until a reset.
    smram = static_cast<std::uint8_t>(smram & ~kSmramOpen);
    locked_ = true;
    smramKept_ = smram;
    tsegKept_ = extended;
  }
  storeConfig(kSmram, std::span(&smram, 1));
  storeConfig(kExtendedSmram, std::span(&extended, 1));
  constexpr std::uint64_t kSizes[] = {1_MiB, 2_MiB, 8_MiB, kExtendedTsegMegabytes * 1_MiB};
  std::uint64_t size = kSizes[extended >> 1 & 3];
  bool closed = smm_ && (smram & kSmramEnable) != 0 && (extended & kTsegEnable) != 0 && size < memory().lowSize();
  memory().setSmram(Gpa{memory().lowSize() - (closed ? size : 0)}, closed ? size : 0);
  memory().mapChanged();
}

}  // namespace lodge
