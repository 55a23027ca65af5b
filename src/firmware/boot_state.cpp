// SPDX-License-Identifier: Apache-2.0
#include "firmware/boot_state.h"

#include <algorithm>

#include "memory/guest_memory.h"

namespace lodge::firmware {

namespace {
// Descriptor bits 40..55 (SDM vol. 3, 3.4.5): type 0-3, S 4, P 7, limit 8-11, L 13, D/B 14, G 15. Accessed bits are
// set.
constexpr std::uint16_t kCode64 = 0xaf9b, kCode32 = 0xcf9b, kData = 0xcf93, kBusyTss = 0x008b;
constexpr std::uint32_t kTssLimit = 0x67;

std::uint64_t descriptor(std::uint16_t attributes, std::uint32_t limitField) {
  return (std::uint64_t{attributes} << 40) | (limitField & 0xffff);
}

void setFlat(BootState& boot, std::uint64_t gdt, std::uint16_t code) {
  for (x86::SegmentRegister& segment : boot.segment) segment = {0, 0xffffffff, kBootDs, kData};
  boot.segment[x86::cs] = {0, 0xffffffff, kBootCs, code};
  boot.tr = {0, kTssLimit, kBootTss, kBusyTss};
  boot.gdtr = {gdt, kFlatGdtEntries * 8 - 1, 0};
}

// MTRR encodings (SDM vol. 3, 11.11.2).
constexpr std::uint64_t kWriteBack = 6, kFixedEnable = 1 << 10, kMtrrEnable = 1 << 11, kRangeValid = 1 << 11;
constexpr std::uint64_t kAllWriteBack = 0x0606060606060606;
constexpr unsigned kFixed16kA0000 = 2;  // index in mtrrFixed: 64K, 16K at 0x80000, 16K at 0xa0000, eight 4K registers
}  // namespace

void makeFlatGdt(bool longMode, std::uint64_t (&gdt)[kFlatGdtEntries]) {
  std::fill(std::begin(gdt), std::end(gdt), 0);
  gdt[kBootCs / 8] = descriptor(longMode ? kCode64 : kCode32, 0xffff);
  gdt[kBootDs / 8] = descriptor(kData, 0xffff);
  gdt[kBootTss / 8] = descriptor(kBusyTss, kTssLimit);
}

BootState protectedModeState(std::uint64_t gdt, std::uint64_t entry) {
  BootState boot;
  setFlat(boot, gdt, kCode32);
  boot.cr0 = x86::cr0::pe | x86::cr0::et;
  boot.rip = entry;
  return boot;
}

BootState longModeState(std::uint64_t gdt, std::uint64_t cr3, std::uint64_t entry) {
  BootState boot;
  setFlat(boot, gdt, kCode64);
  boot.cr0 = x86::cr0::pe | x86::cr0::et | x86::cr0::ne | x86::cr0::pg;
  boot.cr3 = cr3;
  boot.cr4 = x86::cr4::pae;
  boot.efer = x86::efer::lme | x86::efer::lma;
  boot.rip = entry;
  return boot;
}

void applyBootState(const BootState& boot, x86::CpuState& state) {
  std::copy(std::begin(boot.gpr), std::end(boot.gpr), state.gpr);
  state.rip = boot.rip;
  state.rflags = boot.rflags;
  state.cr0 = boot.cr0;
  state.cr3 = boot.cr3;
  state.cr4 = boot.cr4;
  state.efer = boot.efer;
  std::copy(std::begin(boot.segment), std::end(boot.segment), state.segment);
  state.ldtr = boot.ldtr;
  state.tr = boot.tr;
  state.gdtr = boot.gdtr;
  state.idtr = boot.idtr;
  state.cpl = 0;
  state.activity = x86::Activity::running;
}

void applyFirmwareMsrs(const PlatformDescription& platform, x86::CpuState& state) {
  state.mtrrDefType = kMtrrEnable | kFixedEnable | kWriteBack;
  std::fill(std::begin(state.mtrrFixed), std::end(state.mtrrFixed), kAllWriteBack);
  state.mtrrFixed[kFixed16kA0000] = 0;
  std::uint64_t hole = GuestMemory::kHoleEnd - GuestMemory::kHoleStart;
  std::uint64_t addressMask = (std::uint64_t{1} << platform.physicalAddressBits) - 1;
  state.mtrrPhysBase[0] = GuestMemory::kHoleStart;
  state.mtrrPhysMask[0] = (~(hole - 1) & addressMask) | kRangeValid;
}

}  // namespace lodge::firmware
