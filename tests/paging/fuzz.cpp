// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/fuzz.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace lodge::paging {

namespace {
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kAccessed = 0x20, kDirty = 0x40, kLarge = 0x80,
                        kGlobal = 0x100, kNoExecute = 1ull << 63, kNoFlush = 1ull << 63;
}  // namespace

Fuzz::Fuzz(Machine& machine, std::uint64_t seed, const MachineKind& kind, bool verbose)
    : machine_(machine), random_(seed), kind_(kind), verbose_(verbose), cpus_(kVcpus, CpuModel(machine, kind)) {
  const Layout& layout = machine.layout();
  auto addSlot = [&](std::uint64_t frame) {
    for (unsigned page : layout.slotPages) frames_.push_back(frame + page * kPageSize);
  };
  for (unsigned i = 0; i < kFrameCount; ++i) frames_.push_back(kFrames + i * kPageSize);
  for (unsigned i = 0; i < kLargeFrameCount; ++i) addSlot(kLargeFrames + i * layout.slotBytes());
  for (unsigned i = 0; wide() && i < 2; ++i) addSlot(kHugeFrame + i * layout.slotBytes());
  for (std::uint64_t frame : frames_) fillFrame(frame);
  for (unsigned n = 0; n < 200; ++n) edit();
  tables_ = tables();
}

std::string Fuzz::text(const Operation& o) const {
  const CpuModel& c = cpus_[vcpu_];
  return fmt::format(
      "vCPU {} space {} {} stub {} address {:x} value {:x} ac {} wp {} smep {} smap {} pge {} pse {} pcide {} pke {} "
      "pkru {:x}",
      vcpu_, c.space, o.user ? "user" : "kernel", static_cast<unsigned>(o.stub), o.address, o.value, o.accessCheckOff,
      c.wp, c.smep, c.smap, c.pge, c.pse, c.pcide, c.pke, c.pkru);
}

void Fuzz::fillFrame(std::uint64_t frame) {
  for (unsigned at = 0; at < kPageSize; at += 8) machine_.write(frame + at, random_());
  std::byte* p = machine_.physical(frame, kPageSize);
  p[2] = p[kCode + 5] = std::byte{0xc3};
  p[kCode] = p[kCodeAcross] = std::byte{0xb8};
}

std::uint64_t Fuzz::flags(bool mayBeGlobal, bool leaf) {
  return (chance(85) ? kPresent : 0) | (chance(75) ? kWrite : 0) | (chance(60) ? kUserBit : 0) |
         (chance(40) ? kAccessed : 0) | (leaf && chance(40) ? kDirty : 0) | (mayBeGlobal && chance(50) ? kGlobal : 0) |
         (kind_.paging != Paging::bits32 && chance(25) ? kNoExecute : 0) | (wide() && leaf ? below(16) << 59 : 0);
}

void Fuzz::writeEntry(std::uint64_t slot, std::uint64_t value) {
  std::uint64_t linear = machine_.layout().tables() + slot;
  if (chance(50) || tables_.empty()) {
    machine_.setEntry(slot, value);
  } else if (wide()) {
    (void)machine_.run(vcpu_, {Stub::store8, false, false, linear, value});
  } else {
    for (unsigned at = 0; at < machine_.layout().entryBytes; at += 4)
      (void)machine_.run(vcpu_, {Stub::store4, false, false, linear + at, value >> (8 * at) & 0xffff'ffff});
  }
  if (!tables_.empty()) std::memcpy(tables_.data() + slot, &value, machine_.layout().entryBytes);
}

/// An entry for a page of 1 GiB (level 2), 2 MiB or 4 MiB; a few with a reserved bit, or far beyond RAM (PSE-36).
std::uint64_t Fuzz::largePage(int level, bool mayBeGlobal) {
  std::uint64_t value = kLarge | flags(mayBeGlobal, true);
  if (level == 2) return value | (chance(80) ? kHugeFrame : kHugeMmio) | (chance(4) ? 0x2000 : 0);
  value |= kLargeFrames + below(kLargeFrameCount) * machine_.layout().slotBytes();
  if (kind_.paging == Paging::bits32) return value | (chance(4) ? 0x20'0000 : 0) | (chance(4) ? 0x2000 : 0);
  return value | (chance(4) ? 0x2000 : 0);
}

/// One entry, of any level, becomes something else.
void Fuzz::edit() {
  ++edits;
  const Layout& layout = machine_.layout();
  unsigned space = static_cast<unsigned>(below(kSpaces));
  std::uint64_t linear = pages()[below(pages().size())];
  bool shared = linear >= layout.regions[1];
  unsigned which = static_cast<unsigned>(below(20));
  int level = which < 13 ? 0 : which < 17 ? 1 : which < 19 || !shared ? 2 : 3;
  level = std::min(level, layout.top);
  std::uint64_t slot = machine_.slotOf(space, linear, level), before = machine_.entry(slot), value = 0;
  if (level == 0) {
    value = (chance(8) ? kMmio + below(kMmioFrames) * kPageSize : frames_[below(frames_.size())]) | flags(shared, true);
  } else if (kind_.paging == Paging::pae && level == 2) {
    value = machine_.tableOf(slot) | (chance(85) ? kPresent : 0) | (chance(4) ? kAccessed : 0) | (below(8) << 9);
  } else if (level <= 2 && chance(40)) {
    value = largePage(level, shared);
  } else {
    value = machine_.tableOf(slot) | flags(false, false) | (chance(70) ? kPresent | kWrite | kUserBit : 0);
    if (chance(60)) value &= ~kNoExecute;
  }
  // Global pages are the same in all spaces: so are the root's entries of the shared regions.
  for (unsigned other = 0; level == layout.top && shared && other < kSpaces; ++other) {
    std::uint64_t its = machine_.slotOf(other, linear, level);
    if (its == slot) continue;
    for (CpuModel& c : cpus_) markStale(machine_, c, its, level, machine_.entry(its));
    writeEntry(its, value);
  }
  for (CpuModel& c : cpus_) markStale(machine_, c, slot, level, before);
  if (verbose_) fmt::print("edit {:x} level {} space {}: {:x} -> {:x}\n", linear, level, space, before, value);
  writeEntry(slot, value);
}

/// An operation that must do, or give this exception.
std::string Fuzz::system(const Operation& operation, unsigned vector) {
  if (verbose_) fmt::print("system {}\n", text(operation));
  Outcome o = machine_.run(vcpu_, operation);
  return o.vector == vector ? "" : fmt::format("exception {:x} in {}", o.vector, text(operation));
}

std::string Fuzz::switchSpace() {
  unsigned space = static_cast<unsigned>(below(kSpaces));
  CpuModel& c = cpu();
  bool keep = c.pcide && chance(60);
  Operation operation{Stub::writeCr3, false, false, 0, machine_.root(space) | c.pcid(space) | (keep ? kNoFlush : 0)};
  if (c.paging == Paging::pae) {
    if (!pdptesValid(machine_, space)) return system(operation, 13);
    c.space = space;
    loadPdptes(machine_, c);
  }
  c.space = space;
  if (!keep) c.flushedPcid(c.pcid(space));
  return system(operation);
}

/// Toggles a bit; `everything`: that drops all translations. Of these bits PAE paging reads its PDPTEs again, but for
/// SMAP and PKE (SDM vol. 3, 4.4.1).
std::string Fuzz::writeCr4(bool& bit, bool everything) {
  CpuModel& c = cpu();
  bool reload = c.paging == Paging::pae && &bit != &c.smap;
  bit = !bit;
  Operation operation{Stub::writeCr4, false, false, 0, c.cr4()};
  if (reload && !pdptesValid(machine_, c.space)) {
    bit = !bit;
    return system(operation, 13);
  }
  if (reload) loadPdptes(machine_, c);
  if (everything) c.flushedAll();
  return system(operation);
}

/// CR4.PCIDE off, or on again, which CR3 with a PCID forbids.
std::string Fuzz::switchPcids() {
  CpuModel& c = cpu();
  if (c.pcide) return writeCr4(c.pcide, true);
  std::string wrong = system({Stub::writeCr3, false, false, 0, machine_.root(c.space) | 1});
  c.flushedPcid(0);
  c.pcide = true;
  if (wrong.empty()) wrong = system({Stub::writeCr4, false, false, 0, c.cr4()}, 13);
  if (wrong.empty()) wrong = system({Stub::writeCr3, false, false, 0, machine_.root(c.space)});
  if (wrong.empty()) wrong = system({Stub::writeCr4, false, false, 0, c.cr4()});
  return wrong.empty() ? switchSpace() : wrong;
}

std::string Fuzz::control() {
  CpuModel& c = cpu();
  switch (below(wide() ? 7 : 5)) {
    case 0:
      c.wp = !c.wp;
      return system({Stub::writeCr0, false, false, 0, c.cr0()});
    case 1:
      return writeCr4(c.smep, false);
    case 2:
      return writeCr4(c.smap, false);
    case 3:
      return writeCr4(c.pse, true);
    case 4:
      return writeCr4(c.pge, true);
    case 5:
      if (kind_.pcide) return switchPcids();
      [[fallthrough]];
    default:
      if (!kind_.keys) return "";
      if (chance(30)) return writeCr4(c.pke, false);
      if (!c.pke) return system({Stub::writePkru, false, false, 0, 0}, 6);
      c.pkru = static_cast<std::uint32_t>(random_() & random_() & ~3ull);  // user code has key 0
      return system({Stub::writePkru, chance(50), false, 0, c.pkru});
  }
}

/// One invalidation, of any kind; perhaps not of what is out of date.
std::string Fuzz::flush() {
  ++flushes;
  CpuModel& c = cpu();
  unsigned page = static_cast<unsigned>(below(pages().size()));
  for (unsigned n = 0; n < 20 && !c.needsFlush(page); ++n) page = static_cast<unsigned>(below(pages().size()));
  std::uint64_t linear = pages()[page] + below(kPageSize);
  unsigned kind = static_cast<unsigned>(below(12));
  if (kind < 5) {
    c.flushed(page, true, c.pcid(c.space));
    return system({Stub::invlpg, false, false, linear, 0});
  }
  if (kind < 7) return switchSpace();
  if (kind == 7) {
    return writeCr4(c.pge, true);
  }
  // INVPCID; its descriptor lies on the kernel's stack.
  std::uint64_t type = below(4), pcid = c.pcid(static_cast<unsigned>(below(kSpaces)));
  std::uint64_t descriptor = kKernel + 0xa000;
  machine_.write(descriptor, pcid);
  machine_.write(descriptor + 8, linear);
  if (type == 0) {
    c.flushed(page, false, static_cast<unsigned>(pcid));
  } else if (type == 1) {
    c.flushedPcid(static_cast<unsigned>(pcid));
  } else if (type == 2) {
    c.flushedAll();
  } else {
    c.flushedLocal();
  }
  return system({Stub::invpcid, false, false, machine_.layout().kernel + 0xa000, type});
}

std::string Fuzz::run(std::uint64_t count) {
  for (std::uint64_t n = 0; n < count; ++n) {
    if (chance(25)) vcpu_ = static_cast<unsigned>(below(kVcpus));
    unsigned what = static_cast<unsigned>(below(100));
    std::string wrong;
    if (what < 68) {
      wrong = access();
    } else if (what < 84) {
      edit();
    } else if (what < 90) {
      wrong = switchSpace();
    } else if (what < 94) {
      wrong = flush();
    } else if (what < 97) {
      wrong = control();
    } else {
      std::uint64_t frame = frames_[below(frames_.size())];
      machine_.write(frame + kCode + 1, (random_() & 0xffff'ffff) | 0xc3ull << 32);  // a device changes code
    }
    if (!wrong.empty()) return fmt::format("operation {}: {}", n, wrong);
  }
  return "";
}

}  // namespace lodge::paging
