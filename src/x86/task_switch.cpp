// SPDX-License-Identifier: Apache-2.0
#include "x86/task_switch.h"

#include "x86/debug_registers.h"
#include "x86/events.h"
#include "x86/paging.h"
#include "x86/segment_load.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

// Offsets in the TSS (SDM vol. 3, figures 7-2 and 7-10). Registers lie in encoding order from `gpr` on, segment
// selectors in the order ES CS SS DS (FS GS) from `segments` on.
struct Layout {
  unsigned size, slot, cr3, ip, flags, gpr, segments, segmentCount, segmentStride, ldt;
};
constexpr Layout kTss32{104, 4, 28, 32, 36, 40, 72, 6, 4, 96};
constexpr Layout kTss16{44, 2, 0, 14, 16, 18, 34, 4, 2, 42};
constexpr unsigned kTrapBitOffset = 100;

const Layout& layoutOf(unsigned type) {
  return (type & 8) != 0 ? kTss32 : kTss16;
}

struct TaskImage {
  std::uint64_t cr3 = 0, ip = 0, flags = 0, gpr[8] = {}, segment[kSegmentCount] = {}, ldt = 0, trap = 0;
};

std::uint64_t wrap(std::uint64_t address) {
  return address & 0xffff'ffff;
}

bool saveOld(Cpu& cpu, const TaskSwitch& request) {
  const CpuState& state = cpu.state;
  const Layout& layout = layoutOf(state.tr.type());
  std::uint64_t base = state.tr.base;
  std::uint64_t flags = request.flags;
  if (request.kind == TaskSwitch::Kind::iret) flags &= ~flag::nt;
  if (!writeSystem(cpu, wrap(base + layout.ip), layout.slot, request.returnRip)) return false;
  if (!writeSystem(cpu, wrap(base + layout.flags), layout.slot, flags)) return false;
  for (unsigned i = 0; i < 8; ++i) {
    if (!writeSystem(cpu, wrap(base + layout.gpr + i * layout.slot), layout.slot, state.gpr[i])) return false;
  }
  for (unsigned i = 0; i < layout.segmentCount; ++i) {
    std::uint64_t at = wrap(base + layout.segments + i * layout.segmentStride);
    if (!writeSystem(cpu, at, 2, state.segment[i].selector)) return false;
  }
  return true;
}

bool readNew(Cpu& cpu, const TaskSwitch& request, TaskImage& image) {
  const Layout& layout = layoutOf(request.tss.type());
  std::uint64_t base = request.tss.base();
  bool wide = layout.slot == 4;
  if (wide && !readSystem(cpu, wrap(base + layout.cr3), 4, image.cr3)) return false;
  if (wide && !readSystem(cpu, wrap(base + kTrapBitOffset), 2, image.trap)) return false;
  if (!readSystem(cpu, wrap(base + layout.ip), layout.slot, image.ip)) return false;
  if (!readSystem(cpu, wrap(base + layout.flags), layout.slot, image.flags)) return false;
  for (unsigned i = 0; i < 8; ++i) {
    if (!readSystem(cpu, wrap(base + layout.gpr + i * layout.slot), layout.slot, image.gpr[i])) return false;
  }
  for (unsigned i = 0; i < layout.segmentCount; ++i) {
    std::uint64_t at = wrap(base + layout.segments + i * layout.segmentStride);
    if (!readSystem(cpu, at, 2, image.segment[i])) return false;
  }
  return readSystem(cpu, wrap(base + layout.ldt), 2, image.ldt);
}

// Steps 2 to 8 of SDM vol. 3, 7.3: everything that may fault in the old task's name comes before the first store.
bool prepare(Cpu& cpu, const TaskSwitch& request, TaskImage& image) {
  std::uint32_t error = selectorCode(request.selector) | request.ext;
  const Layout& target = layoutOf(request.tss.type());
  const Layout& old = layoutOf(cpu.state.tr.type());
  if (request.tss.limit() < target.size - 1) return raise(cpu, Vector::ts, error);
  if (!cpu.state.tr.present() || cpu.state.tr.limit < old.size - 1) {
    return raise(cpu, Vector::ts, (cpu.state.tr.selector & 0xfffcu) | request.ext);
  }
  if (!probeAs(cpu, cpu.state.tr.base, old.size, Access::write, Rights::supervisor)) return false;
  if (!readNew(cpu, request, image)) return false;
  bool nests = request.kind == TaskSwitch::Kind::call || request.kind == TaskSwitch::Kind::interrupt;
  if (nests && !probeAs(cpu, request.tss.base(), 2, Access::write, Rights::supervisor)) return false;
  return true;
}

bool commitMemory(Cpu& cpu, const TaskSwitch& request) {
  using Kind = TaskSwitch::Kind;
  bool leaves = request.kind == Kind::jump || request.kind == Kind::iret;
  bool nests = request.kind == Kind::call || request.kind == Kind::interrupt;
  if (leaves && !setBusy(cpu, cpu.state.tr.selector, false)) return false;
  if (!saveOld(cpu, request)) return false;
  if (request.kind != Kind::iret && !setBusy(cpu, request.selector, true)) return false;
  return !nests || writeSystem(cpu, wrap(request.tss.base()), 2, cpu.state.tr.selector);
}

void loadRegisters(Cpu& cpu, const TaskSwitch& request, const TaskImage& image) {
  CpuState& state = cpu.state;
  bool wide = (request.tss.type() & 8) != 0;
  bool nests = request.kind == TaskSwitch::Kind::call || request.kind == TaskSwitch::Kind::interrupt;
  state.tr = toSegment(request.tss, request.selector);
  state.tr.attributes |= 2;
  constexpr std::uint64_t kFlags = flag::arithmetic | flag::tf | flag::if_ | flag::df | flag::iopl | flag::nt |
                                   flag::rf | flag::vm | flag::ac | flag::vif | flag::vip | flag::id;
  state.rflags = (image.flags & kFlags & (wide ? ~0ull : 0xffff)) | flag::reserved1 | (nests ? flag::nt : 0);
  state.rip = image.ip;
  for (unsigned i = 0; i < 8; ++i) state.gpr[i] = image.gpr[i];
  for (unsigned i = 0; i < kSegmentCount; ++i) {
    state.segment[i] = nullSegment(static_cast<std::uint16_t>(image.segment[i]));
  }
  state.ldtr = nullSegment(static_cast<std::uint16_t>(image.ldt));
  state.cr0 |= cr0::ts;
  // Local breakpoints belong to the old task (17.2.4).
  state.dr[7] &= ~0x155ull;
  state.cpl = (state.rflags & flag::vm) != 0 ? 3 : static_cast<std::uint8_t>(image.segment[cs] & 3);
  state.interruptShadow = 0;
}

bool loadAddressSpace(Cpu& cpu, const TaskImage& image) {
  CpuState& state = cpu.state;
  if ((state.cr0 & cr0::pg) == 0 || image.cr3 == state.cr3) return true;
  bool good = (state.cr4 & cr4::pae) == 0 || loadPdptes(cpu, image.cr3);
  state.cr3 = image.cr3;
  clearTlbButGlobal(cpu);
  if (cpu.listener) cpu.listener->addressSpaceChanged(false);
  return good || raiseGp(cpu, 0);
}

bool loadTaskLdt(Cpu& cpu, std::uint32_t ext) {
  std::uint16_t selector = cpu.state.ldtr.selector;
  if (isNull(selector)) return true;
  std::uint32_t error = selectorCode(selector) | ext;
  Descriptor descriptor;
  if ((selector & 4) != 0) return raise(cpu, Vector::ts, error);
  if (!readDescriptor(cpu, selector, descriptor, Vector::ts, ext)) return false;
  bool good = descriptor.isSystem() && descriptor.type() == system_type::ldt && descriptor.present();
  if (!good) return raise(cpu, Vector::ts, error);
  cpu.state.ldtr = toSegment(descriptor, selector);
  return true;
}

bool loadTaskCode(Cpu& cpu, std::uint32_t ext) {
  std::uint16_t selector = cpu.state.segment[cs].selector;
  std::uint32_t error = selectorCode(selector) | ext;
  Descriptor descriptor;
  if (isNull(selector)) return raise(cpu, Vector::ts, error);
  if (!readDescriptor(cpu, selector, descriptor, Vector::ts, ext)) return false;
  bool level = descriptor.isConforming() ? descriptor.dpl() <= rpl(selector) : descriptor.dpl() == rpl(selector);
  if (!descriptor.isCode() || !level) return raise(cpu, Vector::ts, error);
  if (!descriptor.present()) return raise(cpu, Vector::np, error);
  if (!setAccessed(cpu, selector, descriptor)) return false;
  cpu.state.segment[cs] = toSegment(descriptor, selector);
  return true;
}

bool loadTaskStack(Cpu& cpu, std::uint32_t ext) {
  std::uint16_t selector = cpu.state.segment[ss].selector;
  std::uint32_t error = selectorCode(selector) | ext;
  unsigned cpl = cpu.state.cpl;
  Descriptor descriptor;
  if (isNull(selector)) return raise(cpu, Vector::ts, error);
  if (!readDescriptor(cpu, selector, descriptor, Vector::ts, ext)) return false;
  if (!descriptor.isWritableData() || rpl(selector) != cpl || descriptor.dpl() != cpl) {
    return raise(cpu, Vector::ts, error);
  }
  if (!descriptor.present()) return raise(cpu, Vector::ss, error);
  if (!setAccessed(cpu, selector, descriptor)) return false;
  cpu.state.segment[ss] = toSegment(descriptor, selector);
  return true;
}

bool loadTaskData(Cpu& cpu, Segment segment, std::uint32_t ext) {
  std::uint16_t selector = cpu.state.segment[segment].selector;
  std::uint32_t error = selectorCode(selector) | ext;
  if (isNull(selector)) return true;
  Descriptor descriptor;
  if (!readDescriptor(cpu, selector, descriptor, Vector::ts, ext)) return false;
  bool level = descriptor.isConforming() || (cpu.state.cpl <= descriptor.dpl() && rpl(selector) <= descriptor.dpl());
  if (!descriptor.isReadable() || !level) return raise(cpu, Vector::ts, error);
  if (!descriptor.present()) return raise(cpu, Vector::np, error);
  if (!setAccessed(cpu, selector, descriptor)) return false;
  cpu.state.segment[segment] = toSegment(descriptor, selector);
  return true;
}

// Step 13: in the new task's name.
bool loadSegments(Cpu& cpu, std::uint32_t ext) {
  CpuState& state = cpu.state;
  if (!loadTaskLdt(cpu, ext)) return false;
  if ((state.rflags & flag::vm) != 0) {
    for (SegmentRegister& reg : state.segment) reg = realSegment(reg.selector, 3);
  } else {
    if (!loadTaskCode(cpu, ext) || !loadTaskStack(cpu, ext)) return false;
    for (Segment segment : {ds, es, fs, gs}) {
      if (!loadTaskData(cpu, segment, ext)) return false;
    }
  }
  return state.rip <= state.segment[cs].limit || raiseGp(cpu, ext);
}

}  // namespace

bool switchTask(Cpu& cpu, const TaskSwitch& request) {
  TaskImage image;
  if (!prepare(cpu, request, image) || !commitMemory(cpu, request)) return false;
  loadRegisters(cpu, request, image);
  bool loaded = loadAddressSpace(cpu, image) && loadSegments(cpu, request.ext);
  if (cpu.listener) cpu.listener->modeChanged();
  rearmDeferredEvents(cpu);
  if (!loaded) return false;
  return (image.trap & 1) == 0 || raiseDebug(cpu, dr6::bt);
}

}  // namespace lodge::x86
