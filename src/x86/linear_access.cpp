// SPDX-License-Identifier: Apache-2.0
// Slow halves of the linear accesses: TLB misses, page crossings, MMIO, code pages, data breakpoints.
#include "x86/debug_registers.h"
#include "x86/mmio.h"
#include "x86/paging.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

namespace {

// The pages of one access: enough for 8 KiB at any alignment.
struct Span {
  static constexpr unsigned kMaxPages = 3;
  struct Part {
    ResolvedPage page;
    unsigned size;
  };
  Part part[kMaxPages];
  unsigned count = 0;
};

// SDM vol. 3, table 6-7, by the operand's size: up to 8 bytes their own alignment, m80 8, 128 bits 16; larger and
// structured operands are left to their instructions.
bool misaligned(std::uint64_t linear, unsigned size) {
  bool power = size != 0 && (size & (size - 1)) == 0 && size <= 16;
  unsigned alignment = size == 10 ? 8 : power ? size : 1;
  return (linear & (alignment - 1)) != 0;
}

bool resolveSpan(Cpu& cpu, std::uint64_t linear, unsigned size, Access access, Rights rights, Span& span) {
  if (rights == Rights::userAligned) {
    if (misaligned(linear, size)) return raise(cpu, Vector::ac, 0);
    rights = Rights::user;
  }
  // Outside long mode linear addresses wrap at 4 GiB.
  std::uint64_t mask = cpu.longMode() ? ~0ull : 0xffff'ffffu;
  while (size != 0 && span.count < Span::kMaxPages) {
    linear &= mask;
    unsigned inPage = static_cast<unsigned>(kPageSize - (linear & kPageMask));
    unsigned length = size < inPage ? size : inPage;
    Span::Part& part = span.part[span.count++];
    part.size = length;
    if (!resolvePage(cpu, linear, access, rights, part.page)) return false;
    linear += length;
    size -= length;
  }
  return true;
}

void readSpan(Cpu& cpu, const Span& span, std::byte* to) {
  for (unsigned i = 0; i < span.count; ++i) {
    const Span::Part& part = span.part[i];
    if (part.page.host) {
      copyBytes(to, part.page.host, part.size);
    } else {
      readMmio(cpu, part.page.gpa, to, part.size);
    }
    to += part.size;
  }
}

void writeSpan(Cpu& cpu, const Span& span, const std::byte* from) {
  for (unsigned i = 0; i < span.count; ++i) {
    const Span::Part& part = span.part[i];
    if (part.page.host) {
      copyBytes(part.page.host, from, part.size);
      wroteTo(cpu, part.page.host, part.size);
    } else {
      writeMmio(cpu, part.page.gpa, from, part.size);
    }
    from += part.size;
  }
}

// Whether a page that was read may be entered for stores, too: not if they do not land there, and not if the first one
// has to be noted.
bool mayEnterWritable(const Cpu& cpu, Gpa gpa, std::uint64_t offset) {
  return cpu.writableOffsetOf(gpa) == offset && !cpu.memory->isVideoOffset(offset);
}

}  // namespace

bool resolvePage(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, ResolvedPage& out) {
  PageTranslation page;
  if (!walk(cpu, linear, access, rights, page)) return false;
  out.gpa = Gpa{page.gpa};
  out.host = nullptr;
  bool store = access == Access::write;
  std::uint64_t offset = store ? cpu.writableOffsetOf(out.gpa) : cpu.offsetOf(out.gpa);
  if (offset == GuestMemory::kNoOffset) return true;
  if (store) cpu.memory->noteStore(offset);
  bool code = cpu.memory->codePages()[offset >> 12].load(std::memory_order_relaxed) != 0;
  out.host = (code && store ? cpu.memory->deviceView() : cpu.memory->cpuRw()) + offset;
  if (!pageHasDataBreakpoint(cpu.state, linear)) {
    bool writable = page.dirty && !code &&
                    (store || (mayEnterWritable(cpu, out.gpa, offset) && allows(cpu, page, Access::write, rights)));
    fillTlb(cpu, linear, access, rights, page, cpu.memory->cpuRw() + (offset & ~kPageMask), writable);
  }
  return true;
}

bool readAs(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value, Rights rights) {
  if (const std::byte* p = tlbReadable(cpu, linear, size, rights)) {
    value = loadHost(p, size);
    return true;
  }
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::read, rights, span)) return false;
  if (span.count == 1 && span.part[0].page.host) {
    value = loadHost(span.part[0].page.host, size);
    return true;
  }
  std::uint64_t buffer = 0;
  readSpan(cpu, span, reinterpret_cast<std::byte*>(&buffer));
  value = buffer;
  return true;
}

bool writeAs(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value, Rights rights) {
  if (std::byte* p = tlbWritable(cpu, linear, size, rights)) {
    storeHost(p, size, value);
    wroteToCpuView(cpu, p, size);
    return true;
  }
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::write, rights, span)) return false;
  if (span.count == 1 && span.part[0].page.host) {
    storeHost(span.part[0].page.host, size, value);
    wroteTo(cpu, span.part[0].page.host, size);
    return true;
  }
  writeSpan(cpu, span, reinterpret_cast<const std::byte*>(&value));
  return true;
}

bool probeAs(Cpu& cpu, std::uint64_t linear, unsigned size, Access access, Rights rights) {
  if (access == Access::write && tlbWritable(cpu, linear, size, rights)) return true;
  if (access == Access::read && tlbReadable(cpu, linear, size, rights)) return true;
  Span span;
  return resolveSpan(cpu, linear, size, access, rights, span);
}

bool readLinear(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value, Privilege privilege) {
  if (!readAs(cpu, linear, size, value, rightsFor(cpu, privilege))) return false;
  noteDataAccess(cpu, linear, size, Access::read);
  return true;
}

bool writeLinear(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value, Privilege privilege) {
  if (!writeAs(cpu, linear, size, value, rightsFor(cpu, privilege))) return false;
  noteDataAccess(cpu, linear, size, Access::write);
  return true;
}

bool readLinearBytes(Cpu& cpu, std::uint64_t linear, void* buffer, unsigned size) {
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::read, currentRights(cpu), span)) return false;
  readSpan(cpu, span, static_cast<std::byte*>(buffer));
  noteDataAccess(cpu, linear, size, Access::read);
  return true;
}

bool writeLinearBytes(Cpu& cpu, std::uint64_t linear, const void* buffer, unsigned size) {
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::write, currentRights(cpu), span)) return false;
  writeSpan(cpu, span, static_cast<const std::byte*>(buffer));
  noteDataAccess(cpu, linear, size, Access::write);
  return true;
}

bool probeLinear(Cpu& cpu, std::uint64_t linear, unsigned size, Access access) {
  return probeAs(cpu, linear, size, access, access == Access::execute ? fetchRights(cpu) : currentRights(cpu));
}

std::byte* writablePointer(Cpu& cpu, std::uint64_t linear, unsigned size) {
  if (std::byte* p = tlbWritable(cpu, linear, size, currentRights(cpu))) return p;
  cpu.exception.valid = false;
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::write, currentRights(cpu), span)) return nullptr;
  if (span.count != 1 || !span.part[0].page.host) return nullptr;
  noteDataAccess(cpu, linear, size, Access::write);
  return span.part[0].page.host;
}

const std::byte* readablePointer(Cpu& cpu, std::uint64_t linear, unsigned size) {
  if (std::byte* p = tlbReadable(cpu, linear, size, currentRights(cpu))) return p;
  cpu.exception.valid = false;
  Span span;
  if (!resolveSpan(cpu, linear, size, Access::read, currentRights(cpu), span)) return nullptr;
  if (span.count != 1 || !span.part[0].page.host) return nullptr;
  noteDataAccess(cpu, linear, size, Access::read);
  return span.part[0].page.host;
}

void wroteTo(Cpu& cpu, std::byte* pointer, unsigned size) {
  auto offset = static_cast<std::uint64_t>(pointer - cpu.memory->cpuRw());
  if (offset >= cpu.memory->backingSize()) offset = static_cast<std::uint64_t>(pointer - cpu.memory->deviceView());
  asm volatile("" ::: "memory");
  if (cpu.memory->codePages()[offset >> 12].load(std::memory_order_relaxed) != 0) reportCodeWrite(cpu, offset, size);
}

void reportCodeWrite(Cpu& cpu, std::uint64_t ramOffset, unsigned size) {
  cpu.parkFpu();
  cpu.memory->writtenAt(ramOffset, size);
}

}  // namespace lodge::x86
