// SPDX-License-Identifier: Apache-2.0
#include "device/pam_bridge.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace lodge {

namespace {
constexpr unsigned kPamRegisters = 7;
constexpr unsigned kReadRam = 1, kWriteRam = 2;
constexpr std::uint8_t kSmramReset = 0x02;  // the compatible SMRAM space lies at 0xa0000
constexpr std::uint8_t kSmramOpen = 0x40, kSmramLock = 0x10, kSmramEnable = 0x08;
constexpr std::uint64_t kPart = 0x4000;
}  // namespace

PamBridge::PamBridge(const PciIdentity& identity, std::string name, Registers registers, GuestMemory& memory,
                     std::uint64_t romBytes)
    : PciFunction(identity, std::move(name)), registers_(registers), memory_(memory), romBytes_(romBytes) {
  for (unsigned n = 0; n < kPamRegisters; ++n) makeWritable(registers_.pam0 + n, n == 0 ? 0x30 : 0x33);
  makeWritable(registers_.smram, 0x7f);
  std::uint8_t smram = kSmramReset;
  storeConfig(registers_.smram, std::span(&smram, 1));
  memory_.useShadowMap();
  applyPam();
}

void PamBridge::reset() {
  PciFunction::reset();
  std::array<std::uint8_t, kPamRegisters> pams{};
  storeConfig(registers_.pam0, pams);
  storeConfig(registers_.smram, std::span(&kSmramReset, 1));
  lockedSmram_ = 0;
  applyPam();
}

void PamBridge::configWritten(unsigned offset, unsigned size) {
  if (offset < registers_.pam0 + kPamRegisters && offset + size > registers_.pam0) applyPam();
  if (registers_.opensSmram && offset <= registers_.smram && offset + size > registers_.smram) smramWritten();
}

// The lock closes SMRAM, and keeps the register as it is until the next reset (82441FX data sheet 3.2.22).
void PamBridge::smramWritten() {
  auto value = static_cast<std::uint8_t>(readConfig(registers_.smram, 1));
  if (lockedSmram_ != 0) {
    value = lockedSmram_;
  } else if ((value & kSmramLock) != 0) {
    value = static_cast<std::uint8_t>(value & ~kSmramOpen);
    lockedSmram_ = value;
  }
  storeConfig(registers_.smram, std::span(&value, 1));
  applyPam();
}

unsigned PamBridge::pam(unsigned part) {
  if (part >= 12) return readConfig(registers_.pam0, 1) >> 4 & 3;
  return readConfig(registers_.pam0 + 1 + part / 2, 1) >> (4 * (part % 2)) & 3;
}

void PamBridge::applyPam() {
  constexpr std::uint8_t kBoth = kSmramOpen | kSmramEnable;
  bool open = registers_.opensSmram && (readConfig(registers_.smram, 1) & kBoth) == kBoth;
  for (std::uint64_t at = GuestMemory::kShadowStart; at < kShadowBase; at += kPageSize) {
    memory_.setShadowPage(Gpa{at}, open ? at : GuestMemory::kNoOffset, open);
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
void PamBridge::writeShadow(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if ((pam(static_cast<unsigned>(offset / kPart)) & kWriteRam) == 0) return;
  std::uint64_t at = kShadowBase + offset;
  if (size > 8 || at + size > memory_.lowSize()) return;
  std::memcpy(memory_.deviceView() + at, &value, size);
  memory_.writtenAt(at, size);
}

}  // namespace lodge
