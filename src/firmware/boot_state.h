// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "firmware/platform.h"
#include "x86/state.h"

namespace lodge::firmware {

/// The registers with which the boot processor enters a kernel; what is not here stays as reset left it.
struct BootState {
  std::uint64_t gpr[16] = {};
  std::uint64_t rip = 0;
  std::uint64_t rflags = x86::flag::reserved1;
  std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  x86::SegmentRegister segment[x86::kSegmentCount] = {};
  x86::SegmentRegister ldtr{}, tr{};
  x86::DescriptorTable gdtr{}, idtr{};
};

/// Sets the BSP's registers to the kernel's entry. To be called after x86::resetCpu(), on the vCPU's thread or before
/// it runs.
void applyBootState(const BootState& boot, x86::CpuState& state);

/// What firmware leaves in every CPU's MSRs before it starts a kernel: memory types (MTRRs: write-back RAM, uncached
/// [3 GiB, 4 GiB) and VGA window). For the BSP and the APs, after x86::resetCpu() without INIT.
void applyFirmwareMsrs(const PlatformDescription& platform, x86::CpuState& state);

/// 32-bit protected mode, paging off, flat segments: what PVH and multiboot ask for. `gdt` is where writeFlatGdt() put
/// it.
BootState protectedModeState(std::uint64_t gdt, std::uint64_t entry);
/// 64-bit mode with the page tables at `cr3`, flat segments with Linux's boot selectors.
BootState longModeState(std::uint64_t gdt, std::uint64_t cr3, std::uint64_t entry);

/// Selectors of the flat GDT: Linux's __BOOT_CS and __BOOT_DS (Documentation/x86/boot.rst), and a task-state segment.
inline constexpr std::uint16_t kBootCs = 0x10, kBootDs = 0x18, kBootTss = 0x20;
inline constexpr unsigned kFlatGdtEntries = 6;  ///< in a 64-bit GDT the TSS takes two
/// The GDT to which those selectors refer; code is 64-bit or 32-bit.
void makeFlatGdt(bool longMode, std::uint64_t (&gdt)[kFlatGdtEntries]);

}  // namespace lodge::firmware
