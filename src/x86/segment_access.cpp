// SPDX-License-Identifier: Apache-2.0
// Segmented addresses (SDM vol. 3, 5.3 to 5.5) and instruction fetch.
#include "x86/segment_access.h"

#include "x86/mmio.h"
#include "x86/paging.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

namespace {

bool segmentFault(Cpu& cpu, Segment segment) {
  return raise(cpu, segment == ss ? Vector::ss : Vector::gp, 0);
}

bool typeAllows(const SegmentRegister& segment, Access access) {
  bool code = (segment.type() & 8) != 0;
  switch (access) {
    case Access::read:
      return !code || (segment.type() & 2) != 0;
    case Access::write:
      return !code && (segment.type() & 2) != 0;
    case Access::execute:
      return true;
  }
  return false;
}

}  // namespace

bool withinLimit(const SegmentRegister& segment, std::uint64_t offset, unsigned size) {
  std::uint64_t last = offset + (size == 0 ? 0 : size - 1);
  bool expandDown = (segment.type() & 0xc) == 4 && !segment.isSystem();
  if (!expandDown) return last <= segment.limit;
  std::uint64_t top = segment.big() ? 0xffff'ffffu : 0xffffu;
  return offset > segment.limit && last <= top;
}

bool linearAddress(Cpu& cpu, Segment segment, std::uint64_t offset, unsigned size, Access access,
                   std::uint64_t& linear) {
  const SegmentRegister& reg = cpu.state.segment[segment];
  if (cpu.mode64()) {
    std::uint64_t address = segment >= fs ? reg.base + offset : offset;
    if (!isCanonical(cpu, address) || (size > 1 && !isCanonical(cpu, address + size - 1))) {
      return segmentFault(cpu, segment);
    }
    linear = address;
    return true;
  }
  offset &= 0xffff'ffff;
  // Real and virtual-8086 mode check limits, but no types (and there are no null selectors).
  if (cpu.protectedMode() && !cpu.virtual8086()) {
    if (!reg.present() || !typeAllows(reg, access)) return segmentFault(cpu, segment);
  }
  if (!withinLimit(reg, offset, size)) return segmentFault(cpu, segment);
  linear = (reg.base + offset) & 0xffff'ffff;
  return true;
}

namespace {

// Bytes that CS lets be fetched at RIP, up to 15; 0 with the exception raised if not even one.
unsigned fetchableBytes(Cpu& cpu, std::uint64_t& linear) {
  const CpuState& state = cpu.state;
  if (!linearAddress(cpu, cs, state.rip, 1, Access::execute, linear)) return 0;
  std::uint64_t left = kMaxInstructionLength;
  if (cpu.mode64()) {
    while (!isCanonical(cpu, linear + left - 1)) --left;
  } else {
    std::uint64_t toLimit = std::uint64_t{state.segment[cs].limit} - (state.rip & 0xffff'ffff) + 1;
    if (toLimit < left) left = toLimit;
  }
  return static_cast<unsigned>(left);
}

bool fetchPart(Cpu& cpu, std::uint64_t linear, unsigned size, std::byte* to) {
  if (const std::byte* p = tlbFetchable(cpu, linear, size)) {
    copyBytes(to, p, size);
    return true;
  }
  ResolvedPage page;
  if (!resolvePage(cpu, linear, Access::execute, fetchRights(cpu), page)) return false;
  if (page.host) {
    copyBytes(to, page.host, size);
  } else {
    readMmio(cpu, page.gpa, to, size);
  }
  return true;
}

}  // namespace

unsigned fetchInstruction(Cpu& cpu, std::uint8_t (&bytes)[15]) {
  std::uint64_t linear = 0;
  unsigned size = fetchableBytes(cpu, linear);
  if (size == 0) return 0;
  auto* to = reinterpret_cast<std::byte*>(bytes);
  auto inPage = static_cast<unsigned>(kPageSize - (linear & kPageMask));
  unsigned first = size < inPage ? size : inPage;
  if (!fetchPart(cpu, linear, first, to)) return 0;
  if (first == size) return size;
  std::uint64_t next = linear + first;
  if (!cpu.mode64()) next &= 0xffff'ffff;
  PendingException before = cpu.exception;
  if (fetchPart(cpu, next, size - first, to + first)) return size;
  // The instruction may well end on the first page; if not, the caller's probe of the next byte raises this again.
  cpu.exception = before;
  return first;
}

}  // namespace lodge::x86
