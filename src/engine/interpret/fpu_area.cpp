// SPDX-License-Identifier: Apache-2.0
// FXSAVE, FXRSTOR and the XSAVE family (SDM vol. 1, 10.5 and 13).
//
// The host executes them on a bounce buffer in the standard format, after every check whose failure would fault;
// formats are converted here. XSAVEOPT and XSAVES are XSAVE and XSAVEC: their modified optimization compares with the
// last XRSTOR from the same address, and every guest area has the same host address.
#include "base/bytes.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/vector_state.h"
#include "engine/interpret/x87_image.h"
#include "engine/interpret/xsave_layout.h"
#include "x86/vector_state.h"

namespace lodge::interpret {
namespace {

using x86::Op;

constexpr std::uint64_t kX87 = 1, kSse = 2, kAvx = 4, kPkru = 1 << 9, kCompacted = std::uint64_t{1} << 63;
constexpr unsigned kHeader = 512, kLegacyBytes = 576;
constexpr unsigned kMxcsr = 24, kSt = 32, kXmm = 160, kXmmEnd = 416, kXmmEnd32 = 288;

std::uint64_t load64(const std::byte* p) {
  return loadLe<std::uint64_t>(p);
}
std::uint32_t load32(const std::byte* p) {
  return loadLe<std::uint32_t>(p);
}
void store64(std::byte* p, std::uint64_t v) {
  storeLe(p, v);
}

void copyQwords(std::byte* to, const std::byte* from, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i += 8) store64(to + i, load64(from + i));
}
void clear(std::byte* to, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i += 8) store64(to + i, 0);
}

bool is64(const Decoded& d) {
  return d.code64;
}
bool wideFormat(const Decoded& d) {
  return d.code64 && (d.insn.rex & 8) != 0;
}
/// Outside 64-bit mode the upper eight vector registers are neither stored nor loaded.
unsigned xmmEnd(const Decoded& d) {
  return is64(d) ? kXmmEnd : kXmmEnd32;
}
bool onlyXmm07(const Decoded& d) {
  return !is64(d);
}

/// Address of the area; #GP unless aligned.
bool areaAddress(Cpu& cpu, const Decoded& d, unsigned size, unsigned alignment, Access access, std::uint64_t& linear) {
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), effectiveAddress(cpu, d), size, access, linear))
    return false;
  if (alignment == 16 && !checkAlignment(cpu, linear, 16)) return false;  // FXSAVE, FXRSTOR: #AC comes first
  return (linear & (alignment - 1)) == 0 || x86::raiseGp(cpu, 0);
}

/// Guest state into `area`, standard format, all components that the host has. Pointers are still the host's.
void saveAll(Cpu& cpu, std::byte* area) {
  cpu.unparkFpu();
  x86::saveVectorState(area);
  if ((cpu.state.xcr0 & kPkru) == 0) return;  // protection keys are not in the host's register
  storeLe(area + xsaveLayout().offset[9], std::uint64_t{static_cast<std::uint32_t>(cpu.state.pkru)});
  if (cpu.state.pkru != 0) store64(area + kHeader, load64(area + kHeader) | kPkru);
}

// --- FXSAVE, FXRSTOR

bool checkFx(Cpu& cpu) {
  if ((cpu.state.cr0 & (x86::cr0::em | x86::cr0::ts)) != 0) return x86::raise(cpu, x86::Vector::nm);
  return true;
}
/// AMD's fast FXSAVE leaves the vector registers out at CPL 0 in 64-bit mode (APM vol. 2, 11.4.4).
bool fastFx(const Cpu& cpu, const Decoded& d) {
  return is64(d) && cpu.state.cpl == 0 && (cpu.state.efer & x86::efer::ffxsr) != 0;
}
unsigned fxBytes(const Cpu& cpu, const Decoded& d) {
  return fastFx(cpu, d) ? kXmm : xmmEnd(d);
}

Outcome fxsave(Cpu& cpu, const Decoded& d) {
  std::uint64_t linear;
  if (!checkFx(cpu) || !areaAddress(cpu, d, 512, 16, Access::write, linear)) return Outcome::fault;
  if (!x86::probeLinear(cpu, linear, 512, Access::write)) return Outcome::fault;
  Context& c = contextOf(cpu);
  cpu.unparkFpu();
  asm volatile("fxsave64 (%0)" : : "r"(c.area) : "memory");
  storeAreaPointers(cpu, wideFormat(d), c.area);
  return outcomeOf(x86::writeLinearBytes(cpu, linear, c.area, fxBytes(cpu, d)));
}

Outcome fxrstor(Cpu& cpu, const Decoded& d) {
  std::uint64_t linear;
  Context& c = contextOf(cpu);
  if (!checkFx(cpu) || !areaAddress(cpu, d, 512, 16, Access::read, linear)) return Outcome::fault;
  if (!x86::readLinearBytes(cpu, linear, c.area + 1024, 512)) return Outcome::fault;
  if ((load32(c.area + 1024 + kMxcsr) & ~mxcsrMask()) != 0) return outcomeOf(x86::raiseGp(cpu, 0));
  cpu.unparkFpu();
  asm volatile("fxsave64 (%0)" : : "r"(c.area) : "memory");
  copyQwords(c.area, c.area + 1024, fxBytes(cpu, d));
  loadAreaPointers(cpu, wideFormat(d), c.area);
  if (wideFormat(d)) {
    asm volatile("fxrstor64 (%0)" : : "r"(c.area) : "memory");
  } else {
    asm volatile("fxrstor (%0)" : : "r"(c.area) : "memory");
  }
  return Outcome::next;
}

// --- XSAVE

bool checkX(Cpu& cpu) {
  if ((cpu.state.cr4 & x86::cr4::osxsave) == 0) return x86::raiseUd(cpu);
  if ((cpu.state.cr0 & x86::cr0::ts) != 0) return x86::raise(cpu, x86::Vector::nm);
  return true;
}

std::uint64_t requested(const Cpu& cpu) {
  std::uint64_t mask = cpu.state.gpr[x86::rdx] << 32 | static_cast<std::uint32_t>(cpu.state.gpr[x86::rax]);
  return mask & cpu.state.xcr0;
}

/// Bytes of an area with these components, in either format.
unsigned areaBytes(std::uint64_t components, bool compacted) {
  const XsaveLayout& layout = xsaveLayout();
  unsigned end = kLegacyBytes;
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    if (((components >> i) & 1) == 0) continue;
    if (compacted) {
      end = layout.compactedOffset(i, end) + layout.size[i];
    } else if (layout.offset[i] + layout.size[i] > end) {
      end = layout.offset[i] + layout.size[i];
    }
  }
  return end;
}

/// One component of the host's image at a time to the guest: x87 and SSE share the legacy region.
bool writeLegacy(Cpu& cpu, const Decoded& d, std::uint64_t linear, const std::byte* image, std::uint64_t mask) {
  if ((mask & kX87) && !(x86::writeLinearBytes(cpu, linear, image, kMxcsr) &&
                         x86::writeLinearBytes(cpu, linear + kSt, image + kSt, kXmm - kSt))) {
    return false;
  }
  if ((mask & (kSse | kAvx)) && !x86::writeLinearBytes(cpu, linear + kMxcsr, image + kMxcsr, 8)) return false;
  return (mask & kSse) == 0 || x86::writeLinearBytes(cpu, linear + kXmm, image + kXmm, xmmEnd(d) - kXmm);
}

unsigned componentBytes(const Decoded& d, unsigned i) {
  unsigned size = xsaveLayout().size[i];
  if (!onlyXmm07(d)) return size;
  constexpr unsigned kYmm = 2, kZmmHigh = 6, kZmm16To31 = 7;  // SDM vol. 1, 13.5
  return i == kZmm16To31 ? 0 : i == kYmm || i == kZmmHigh ? size / 2 : size;
}

bool writeExtended(Cpu& cpu, const Decoded& d, std::uint64_t linear, const std::byte* image, std::uint64_t mask,
                   bool compacted, std::uint64_t present) {
  const XsaveLayout& layout = xsaveLayout();
  unsigned end = kLegacyBytes;
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    if (((mask >> i) & 1) == 0) continue;
    unsigned at = compacted ? layout.compactedOffset(i, end) : layout.offset[i];
    end = at + layout.size[i];
    if (compacted && ((present >> i) & 1) == 0) continue;  // init optimization: not written
    if (!x86::writeLinearBytes(cpu, linear + at, image + layout.offset[i], componentBytes(d, i))) return false;
  }
  return true;
}

Outcome xsave(Cpu& cpu, const Decoded& d) {
  Op op = d.insn.info->op;
  bool compacted = op == Op::xsavec || op == Op::xsaves;
  if (!checkX(cpu)) return Outcome::fault;
  if (op == Op::xsaves && !isSupervisor(cpu)) return outcomeOf(x86::raiseGp(cpu, 0));
  std::uint64_t mask = requested(cpu), linear;
  unsigned bytes = areaBytes(mask, compacted);
  if (!areaAddress(cpu, d, bytes, 64, Access::write, linear)) return Outcome::fault;
  if (!x86::probeLinear(cpu, linear, bytes, Access::write)) return Outcome::fault;
  Context& c = contextOf(cpu);
  std::uint64_t header = 0;
  if (!compacted && !x86::readLinear(cpu, linear + kHeader, 8, header)) return Outcome::fault;
  saveAll(cpu, c.area);
  storeAreaPointers(cpu, wideFormat(d), c.area);
  std::uint64_t present = load64(c.area + kHeader) & mask;
  // XSAVEC writes only components in use; MXCSR counts as SSE's.
  bool mxcsrInUse = load32(c.area + kMxcsr) != 0x1f80;
  if (compacted && (mask & kSse) && mxcsrInUse) present |= kSse;
  bool good = writeLegacy(cpu, d, linear, c.area, compacted ? present : mask);
  good = good && writeExtended(cpu, d, linear, c.area, mask, compacted, present);
  if (good && compacted) {
    good = x86::writeLinear(cpu, linear + kHeader, 8, present) &&
           x86::writeLinear(cpu, linear + kHeader + 8, 8, mask | kCompacted);
  } else if (good) {
    good = x86::writeLinear(cpu, linear + kHeader, 8, (header & ~mask) | present);
  }
  return outcomeOf(good);
}

// --- XRSTOR

struct Restore {
  std::uint64_t linear, mask, present, compacted;  // compacted: XCOMP_BV, 0 for the standard format
};

/// Header checks of SDM vol. 1, 13.8.1 and 13.12.
bool readHeader(Cpu& cpu, const Decoded& d, Restore& r) {
  std::uint64_t header[8];
  bool supervisorForm = d.insn.info->op == Op::xrstors;
  if (!x86::readLinearBytes(cpu, r.linear + kHeader, header, 64)) return false;
  r.present = header[0];
  r.compacted = (header[1] & kCompacted) ? header[1] : 0;
  bool bad = false;
  for (unsigned i = 2; i < 8; ++i) bad = bad || header[i] != 0;
  if (r.compacted != 0) {
    if (!hasFeature(cpu, x86::Feature::xsavec)) return x86::raiseGp(cpu, 0);
    std::uint64_t components = r.compacted & ~kCompacted;
    bad = bad || (components & ~cpu.state.xcr0) != 0 || (r.present & ~components) != 0;
  } else {
    bad = supervisorForm || header[1] != 0 || header[2] != 0 || (r.present & ~cpu.state.xcr0) != 0;
  }
  return !bad || x86::raiseGp(cpu, 0);
}

/// The guest's area of either format, over the current state in c.area (standard format).
bool readComponents(Cpu& cpu, const Decoded& d, const Restore& r, Context& c) {
  const XsaveLayout& layout = xsaveLayout();
  std::uint64_t loaded = r.mask & r.present;
  if ((loaded & kX87) && !(x86::readLinearBytes(cpu, r.linear, c.area, kMxcsr) &&
                           x86::readLinearBytes(cpu, r.linear + kSt, c.area + kSt, kXmm - kSt))) {
    return false;
  }
  if ((loaded & kSse) && !x86::readLinearBytes(cpu, r.linear + kXmm, c.area + kXmm, xmmEnd(d) - kXmm)) return false;
  unsigned end = kLegacyBytes;
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    std::uint64_t bit = std::uint64_t{1} << i;
    unsigned at = layout.offset[i];
    if (r.compacted & bit) {
      at = layout.compactedOffset(i, end);
      end = at + layout.size[i];
    }
    if ((loaded & bit) && !x86::readLinearBytes(cpu, r.linear + at, c.area + layout.offset[i], componentBytes(d, i)))
      return false;
  }
  return true;
}

/// MXCSR (SDM vol. 1, 13.8.1, 13.8.2): the standard form loads it whenever SSE or AVX is asked for; the compacted form
/// goes by SSE.
bool readMxcsr(Cpu& cpu, const Restore& r, Context& c) {
  std::uint64_t value = load32(c.area + kMxcsr);
  bool asked = r.compacted != 0 ? (r.mask & kSse) != 0 : (r.mask & (kSse | kAvx)) != 0;
  if (asked && r.compacted != 0 && (r.present & kSse) == 0) {
    value = 0x1f80;
  } else if (asked) {
    if (!x86::readLinear(cpu, r.linear + kMxcsr, 4, value)) return false;
    if ((value & ~std::uint64_t{mxcsrMask()}) != 0) return x86::raiseGp(cpu, 0);
  }
  storeLe(c.area + kMxcsr, static_cast<std::uint32_t>(value));
  return true;
}

/// Components that are asked for and absent get their initial values.
void initialize(const Decoded& d, std::uint64_t absent, std::byte* area) {
  const XsaveLayout& layout = xsaveLayout();
  if (absent & kX87) {
    clear(area, kMxcsr);
    clear(area + kSt, kXmm - kSt);
    storeLe(area, std::uint16_t{0x37f});
  }
  if (absent & kSse) clear(area + kXmm, xmmEnd(d) - kXmm);
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    if ((absent >> i) & 1) clear(area + layout.offset[i], componentBytes(d, i));
  }
}

Outcome xrstor(Cpu& cpu, const Decoded& d) {
  if (!checkX(cpu)) return Outcome::fault;
  if (d.insn.info->op == Op::xrstors && !isSupervisor(cpu)) return outcomeOf(x86::raiseGp(cpu, 0));
  Restore r{};
  r.mask = requested(cpu);
  if (!areaAddress(cpu, d, kLegacyBytes, 64, Access::read, r.linear) || !readHeader(cpu, d, r)) return Outcome::fault;
  Context& c = contextOf(cpu);
  std::uint64_t components = r.compacted != 0 ? r.compacted & ~kCompacted : r.mask & r.present;
  unsigned bytes = areaBytes(components, r.compacted != 0);
  if (!x86::probeLinear(cpu, r.linear, bytes, Access::read)) return Outcome::fault;
  saveAll(cpu, c.area);
  // MMIO reads below would park into state.xsave; c.area is a copy, so that nothing is lost.
  initialize(d, r.mask & ~r.present, c.area);
  if (!readComponents(cpu, d, r, c) || !readMxcsr(cpu, r, c)) return Outcome::fault;
  if (r.mask & kX87) {
    cpu.x87 = x86::X87Pointers{};
    if (r.present & kX87) loadAreaPointers(cpu, wideFormat(d), c.area);
    storeLe(c.area + 8, cpu.x87.ip);  // the host loads the 64-bit format
    storeLe(c.area + 16, cpu.x87.dp);
  }
  // What is absent becomes "not in use"; outside 64-bit mode the registers that stay forbid to say so of the whole
  // component.
  std::uint64_t inUse = load64(c.area + kHeader);
  if (is64(d)) inUse &= ~r.mask;
  store64(c.area + kHeader, inUse | (r.mask & r.present));
  if (r.mask & kPkru) x86::setPkru(cpu, r.present & kPkru ? load32(c.area + xsaveLayout().offset[9]) : 0);
  cpu.unparkFpu();
  x86::loadVectorState(c.area);
  return Outcome::next;
}

}  // namespace

std::uint64_t componentsInUse(Cpu& cpu) {
  Context& c = contextOf(cpu);
  saveAll(cpu, c.area);
  std::uint64_t present = load64(c.area + kHeader);
  if (load32(c.area + kMxcsr) != 0x1f80) present |= kSse;
  return present;
}

Handler stateHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::fxsave:
      return &fxsave;
    case Op::fxrstor:
      return &fxrstor;
    case Op::xsave:
    case Op::xsaveopt:
    case Op::xsavec:
    case Op::xsaves:
      return &xsave;
    case Op::xrstor:
    case Op::xrstors:
      return &xrstor;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
