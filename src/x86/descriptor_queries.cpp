// SPDX-License-Identifier: Apache-2.0
// LAR, LSL, VERR, VERW: they look at a descriptor and report in ZF; only the reads of the table can fault.
#include <initializer_list>

#include "x86/descriptor.h"
#include "x86/segment_load.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

// Reads the descriptor if the selector names one; `found` tells.
bool look(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor, bool& found) {
  if (realOr8086(cpu)) return raiseUd(cpu);
  found = !isNull(selector) && insideTable(cpu, selector, 8);
  return !found || readDescriptor(cpu, selector, descriptor, Vector::gp);
}

bool visible(const Cpu& cpu, std::uint16_t selector, const Descriptor& descriptor) {
  if (descriptor.isConforming()) return true;
  return cpu.state.cpl <= descriptor.dpl() && rpl(selector) <= descriptor.dpl();
}

constexpr unsigned typeSet(std::initializer_list<unsigned> types) {
  unsigned set = 0;
  for (unsigned type : types) set |= 1u << type;
  return set;
}

// System descriptor types that have access rights and limits (SDM vol. 2, LAR and LSL; fewer in long mode).
constexpr unsigned kLar = typeSet({1, 2, 3, 4, 5, 9, 11, 12}), kLarLong = typeSet({2, 9, 11, 12});
constexpr unsigned kLsl = typeSet({1, 2, 3, 9, 11}), kLslLong = typeSet({2, 9, 11});

}  // namespace

bool loadAccessRights(Cpu& cpu, std::uint16_t selector, bool& ok, std::uint32_t& rights) {
  Descriptor descriptor;
  if (!look(cpu, selector, descriptor, ok)) return false;
  unsigned types = cpu.longMode() ? kLarLong : kLar;
  ok = ok && visible(cpu, selector, descriptor) && (!descriptor.isSystem() || ((types >> descriptor.type()) & 1) != 0);
  if (ok) rights = static_cast<std::uint32_t>(descriptor.low >> 32) & 0x00ff'ff00;
  return true;
}

bool loadLimit(Cpu& cpu, std::uint16_t selector, bool& ok, std::uint32_t& limit) {
  Descriptor descriptor;
  if (!look(cpu, selector, descriptor, ok)) return false;
  unsigned types = cpu.longMode() ? kLslLong : kLsl;
  ok = ok && visible(cpu, selector, descriptor) && (!descriptor.isSystem() || ((types >> descriptor.type()) & 1) != 0);
  if (ok) limit = descriptor.limit();
  return true;
}

bool verifySegment(Cpu& cpu, std::uint16_t selector, bool forWrite, bool& ok) {
  Descriptor descriptor;
  if (!look(cpu, selector, descriptor, ok)) return false;
  ok = ok && visible(cpu, selector, descriptor) && (forWrite ? descriptor.isWritableData() : descriptor.isReadable());
  return true;
}

}  // namespace lodge::x86
