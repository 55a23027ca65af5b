// SPDX-License-Identifier: Apache-2.0
#include "x86/smm.h"

#include "x86/cpu_model.h"
#include "x86/debug_registers.h"
#include "x86/events.h"
#include "x86/paging.h"
#include "x86/system.h"
#include "x86/tlb.h"

namespace lodge::x86 {

namespace {
// The save area, from SMBASE + 0x8000 on (APM vol. 2, table 10-1).
namespace at {
constexpr unsigned segments = 0x7e00, gdtrLimit = 0x7e64, gdtrBase = 0x7e68, ldtr = 0x7e70, idtrLimit = 0x7e84,
                   idtrBase = 0x7e88, tr = 0x7e90, autoHalt = 0x7ec9, efer = 0x7ed0, revision = 0x7efc, smbase = 0x7f00,
                   cr4 = 0x7f48, cr3 = 0x7f50, cr0 = 0x7f58, dr7 = 0x7f60, dr6 = 0x7f68, rflags = 0x7f70, rip = 0x7f78,
                   registers = 0x7ff8;
}
constexpr std::uint32_t kRevision = 0x0002'0064;  // SMBASE relocation; the 64-bit format
constexpr std::uint16_t kSavedAttributes = 0xf0ff;

std::uint64_t canonical(std::uint64_t address) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << 16) >> 16);
}

/// The save area of one CPU, by guest-physical address. What lies outside of memory is lost, and reads as ones.
struct SaveArea {
  Cpu& cpu;
  std::uint64_t base;

  void put(unsigned offset, unsigned size, std::uint64_t value) {
    std::uint64_t where = cpu.writableOffsetOf(Gpa{base + offset});
    if (where == GuestMemory::kNoOffset) return;
    std::byte* to = cpu.memory->deviceView() + where;
    storeHost(to, size, value);
    wroteTo(cpu, to, size);
  }
  std::uint64_t get(unsigned offset, unsigned size) const {
    std::uint64_t where = cpu.offsetOf(Gpa{base + offset});
    if (where == GuestMemory::kNoOffset) return ~0ull >> (64 - 8 * size);
    return loadHost(cpu.memory->deviceView() + where, size);
  }
  void putSegment(unsigned offset, const SegmentRegister& segment) {
    put(offset, 2, segment.selector);
    put(offset + 2, 2, segment.attributes & kSavedAttributes);
    put(offset + 4, 4, segment.limit);
    put(offset + 8, 8, segment.base);
  }
  SegmentRegister segment(unsigned offset) const {
    return {canonical(get(offset + 8, 8)), static_cast<std::uint32_t>(get(offset + 4, 4)),
            static_cast<std::uint16_t>(get(offset, 2)),
            static_cast<std::uint16_t>(get(offset + 2, 2) & kSavedAttributes)};
  }
};

void save(Cpu& cpu, SaveArea area) {
  const CpuState& s = cpu.state;
  for (unsigned n = 0; n < kSegmentCount; ++n) area.putSegment(at::segments + 16 * n, s.segment[n]);
  area.put(at::gdtrLimit, 4, s.gdtr.limit);
  area.put(at::gdtrBase, 8, s.gdtr.base);
  area.putSegment(at::ldtr, s.ldtr);
  area.put(at::idtrLimit, 4, s.idtr.limit);
  area.put(at::idtrBase, 8, s.idtr.base);
  area.putSegment(at::tr, s.tr);
  area.put(at::autoHalt - 1, 2, s.activity == Activity::halted ? 0x100 : 0);
  area.put(at::efer, 8, s.efer);
  area.put(at::revision, 4, kRevision);
  area.put(at::smbase, 4, s.smbase);
  area.put(at::cr4, 8, s.cr4);
  area.put(at::cr3, 8, s.cr3);
  area.put(at::cr0, 8, s.cr0);
  area.put(at::dr7, 8, s.dr[7]);
  area.put(at::dr6, 8, s.dr[6]);
  area.put(at::rflags, 8, s.rflags);
  area.put(at::rip, 8, s.rip);
  for (unsigned n = 0; n < 16; ++n) area.put(at::registers - 8 * n, 8, s.gpr[n]);
}

void changedEverything(Cpu& cpu) {
  flushTlbEverything(cpu);
  if (!cpu.listener) return;
  cpu.listener->addressSpaceChanged(false);
  cpu.listener->modeChanged();
}

/// A control register's bits that this CPU has: the save area is the guest's to write.
void loadControl(Cpu& cpu, SaveArea area) {
  CpuState& s = cpu.state;
  constexpr std::uint64_t kCr0Bits =
      cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::ne | cr0::wp | cr0::am | cr0::nw | cr0::cd | cr0::pg;
  s.cr0 = (area.get(at::cr0, 8) & kCr0Bits) | cr0::et;
  s.cr4 = area.get(at::cr4, 8) & cpu.model->cr4Supported;
  s.efer = area.get(at::efer, 8) & (cpu.model->eferSupported | efer::lma);
  if ((s.cr0 & cr0::pe) == 0) s.cr0 &= ~cr0::pg;
  bool longMode = (s.cr0 & cr0::pg) != 0 && (s.efer & efer::lme) != 0 && (s.cr4 & cr4::pae) != 0;
  s.efer = longMode ? s.efer | efer::lma : s.efer & ~efer::lma;
  if (!longMode && (s.cr0 & cr0::pg) != 0) s.efer &= ~efer::lme;
  if (!longMode) s.cr4 &= ~cr4::pcide;
  s.cr3 = area.get(at::cr3, 8) & ((1ull << cpu.model->physicalAddressBits) - 1);
  bool pae = (s.cr0 & cr0::pg) != 0 && (s.cr4 & cr4::pae) != 0 && !longMode;
  if (pae && !loadPdptes(cpu, s.cr3)) s.activity = Activity::shutdown;  // APM vol. 2, 10.3.7: what is not valid
}

void loadSegments(Cpu& cpu, SaveArea area) {
  CpuState& s = cpu.state;
  for (unsigned n = 0; n < kSegmentCount; ++n) s.segment[n] = area.segment(at::segments + 16 * n);
  s.ldtr = area.segment(at::ldtr);
  s.tr = area.segment(at::tr);
  s.gdtr.limit = static_cast<std::uint16_t>(area.get(at::gdtrLimit, 4));
  s.gdtr.base = canonical(area.get(at::gdtrBase, 8));
  s.idtr.limit = static_cast<std::uint16_t>(area.get(at::idtrLimit, 4));
  s.idtr.base = canonical(area.get(at::idtrBase, 8));
  if ((s.efer & efer::lma) == 0) s.segment[cs].attributes &= 0xdfff;  // no 64-bit code
  s.cpl = (s.cr0 & cr0::pe) == 0 ? 0 : (s.rflags & flag::vm) != 0 ? 3 : static_cast<std::uint8_t>(s.segment[ss].dpl());
}
}  // namespace

void enterSmm(Cpu& cpu) {
  CpuState& s = cpu.state;
  s.smm = 1;
  s.smmNmiBlocked = s.nmiBlocked;
  save(cpu, {cpu, std::uint64_t{s.smbase} + 0x8000});
  s.nmiBlocked = 1;
  s.activity = Activity::running;
  s.rflags = flag::reserved1;
  s.rip = 0x8000;
  s.cr0 &= ~(cr0::pe | cr0::em | cr0::ts | cr0::pg);
  s.cr4 = 0;
  s.efer = 0;
  s.dr[7] = dr7::fixedOnes;
  s.pendingDebug = 0;
  constexpr std::uint16_t kFlat = 0x8093;  // read, write, accessed; present; limits in pages
  for (SegmentRegister& segment : s.segment) segment = {0, 0xffff'ffff, 0, kFlat};
  s.segment[cs].selector = static_cast<std::uint16_t>(s.smbase >> 4);
  s.segment[cs].base = s.smbase;
  s.cpl = 0;
  changedEverything(cpu);
}

bool resumeFromSmm(Cpu& cpu) {
  CpuState& s = cpu.state;
  if (s.smm == 0) return raiseUd(cpu);
  SaveArea area{cpu, std::uint64_t{s.smbase} + 0x8000};
  constexpr std::uint64_t kFlags = 0x3f'7fd5;
  bool halted = (area.get(at::autoHalt, 1) & 1) != 0;
  s.activity = halted ? Activity::halted : Activity::running;
  loadControl(cpu, area);
  s.rflags = (area.get(at::rflags, 8) & kFlags) | flag::reserved1;
  if (cpu.longMode()) s.rflags &= ~flag::vm;
  loadSegments(cpu, area);
  s.rip = area.get(at::rip, 8);
  if (!cpu.longMode()) s.rip &= 0xffff'ffff;
  for (unsigned n = 0; n < 16; ++n) s.gpr[n] = area.get(at::registers - 8 * n, 8);
  s.dr[6] = (area.get(at::dr6, 8) & 0xe00f) | dr6::fixedOnes;
  s.dr[7] = (area.get(at::dr7, 8) & 0xffff'2fff) | dr7::fixedOnes;
  s.smbase = static_cast<std::uint32_t>(area.get(at::smbase, 4));
  s.nmiBlocked = s.smmNmiBlocked;
  s.smm = 0;
  changedEverything(cpu);
  rearmDeferredEvents(cpu);
  return true;
}

}  // namespace lodge::x86
