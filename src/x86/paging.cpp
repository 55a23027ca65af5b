// SPDX-License-Identifier: Apache-2.0
#include "x86/paging.h"

#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

namespace pte {
constexpr std::uint64_t present = 1, writable = 2, user = 4, accessed = 1 << 5, dirty = 1 << 6, pageSize = 1 << 7,
                        global = 1 << 8, noExecute = 1ull << 63, address = 0x000f'ffff'ffff'f000;
}

constexpr std::uint64_t bitRange(unsigned low, unsigned high) {
  return (high >= 63 ? ~0ull : (1ull << (high + 1)) - 1) & ~((1ull << low) - 1);
}

// Where an entry lies and what it held when the walk read it.
struct EntryRef {
  std::uint64_t offset;  // in RAM, or kNoOffset
  std::uint64_t value;
};

enum class Attempt : std::uint8_t { done, retry, fault };

// After this many lost races against other writers of the same entries, A and D are set without looking.
constexpr unsigned kPatience = 16;

// Protection keys (SDM vol. 3, 4.6.2): data accesses to user-mode addresses in 4- and 5-level paging.
bool violatesKey(const Cpu& cpu, const PageTranslation& page, Access access, Rights rights) {
  const CpuState& state = cpu.state;
  if ((state.cr4 & cr4::pke) == 0 || (state.efer & efer::lma) == 0 || (state.cr0 & cr0::pg) == 0) return false;
  if (access == Access::execute || !page.user) return false;
  std::uint64_t bits = state.pkru >> (2 * page.protectionKey);
  bool writeChecked = rights == Rights::user || (state.cr0 & cr0::wp) != 0;
  return (bits & 1) != 0 || ((bits & 2) != 0 && access == Access::write && writeChecked);
}

// SDM vol. 3, 4.6.1.
bool violatesRights(const Cpu& cpu, const PageTranslation& page, Access access, Rights rights) {
  const CpuState& state = cpu.state;
  if ((state.cr0 & cr0::pg) == 0) return false;
  if (access == Access::execute) {
    if (page.noExecute) return true;
    return rights == Rights::user ? !page.user : page.user && (state.cr4 & cr4::smep) != 0;
  }
  if (rights == Rights::user) return !page.user || (access == Access::write && !page.writable);
  if (page.user && rights == Rights::supervisor && (state.cr4 & cr4::smap) != 0) return true;
  return access == Access::write && !page.writable && (state.cr0 & cr0::wp) != 0;
}

class Walker {
 public:
  Walker(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, PageTranslation& out)
      : cpu_(cpu), linear_(linear), access_(access), rights_(rights), out_(out) {}

  bool run() {
    PagingMode mode = pagingMode(cpu_.state);
    for (unsigned round = 0;; ++round) {
      depth_ = 0;
      allOf_ = ~0ull;
      anyOf_ = 0;
      forceBits_ = round >= kPatience;
      Attempt attempt = mode == PagingMode::bits32 ? walk32() : walk64(mode);
      if (attempt != Attempt::retry) return attempt == Attempt::done;
    }
  }

 private:
  bool longModePaging() const { return (cpu_.state.efer & efer::lma) != 0; }

  Attempt fault(std::uint32_t code) {
    const CpuState& state = cpu_.state;
    if (access_ == Access::write) code |= pf::write;
    if (rights_ == Rights::user) code |= pf::user;
    bool nx = (state.cr4 & cr4::pae) != 0 && (state.efer & efer::nxe) != 0;
    if (access_ == Access::execute && (nx || (state.cr4 & cr4::smep) != 0)) code |= pf::fetch;
    raisePageFault(cpu_, linear_, code);
    return Attempt::fault;
  }

  std::uint64_t readEntry(std::uint64_t gpa, unsigned size) {
    std::uint64_t offset = cpu_.offsetOf(Gpa{gpa & cpu_.memory->cpuAddressMask()});
    std::uint64_t value = size == 8 ? ~0ull : 0xffff'ffffu;
    if (offset != GuestMemory::kNoOffset) value = loadHost(cpu_.memory->cpuRw() + offset, size);
    entries_[depth_++] = {offset, value};
    return value;
  }

  // Rights are what all levels grant; execution is forbidden where any forbids it.
  void combine(std::uint64_t entry) {
    allOf_ &= entry;
    anyOf_ |= entry;
  }

  Attempt walk64(PagingMode mode);
  Attempt walk32();
  std::uint64_t reservedAtAllLevels() const;
  std::uint64_t reservedAt(unsigned level, bool leaf) const;
  Attempt finish(std::uint64_t leaf, std::uint64_t pageBase, std::uint64_t pageSize, unsigned entrySize);
  Attempt setAccessedDirty(unsigned entrySize);
  bool setBits(const EntryRef& entry, std::uint64_t bits, unsigned entrySize);

  Cpu& cpu_;
  std::uint64_t linear_;
  Access access_;
  Rights rights_;
  PageTranslation& out_;
  EntryRef entries_[5];
  unsigned depth_ = 0;
  std::uint64_t allOf_ = 0, anyOf_ = 0;
  bool forceBits_ = false;
};

// Reserved bits of a present entry (SDM vol. 3, tables 4-8 to 4-20).
std::uint64_t Walker::reservedAtAllLevels() const {
  std::uint64_t reserved = reservedAddressBits(cpu_);
  if ((cpu_.state.efer & efer::nxe) == 0) reserved |= pte::noExecute;
  if (!longModePaging()) reserved |= bitRange(52, 62);
  return reserved;
}

std::uint64_t Walker::reservedAt(unsigned level, bool leaf) const {
  if (level == 1) return 0;
  if (level == 2) return leaf ? bitRange(13, 20) : 0;
  // Where 1 GiB pages do not exist, PS of a PDPTE is reserved.
  if (level == 3) return leaf ? bitRange(13, 29) : pte::pageSize;
  // AMD APM vol. 2, 5.3.3: bit 8 of a PML4E.
  return pte::pageSize | (cpu_.model->vendor == CpuVendor::amd ? pte::global : 0);
}

Attempt Walker::walk64(PagingMode mode) {
  std::uint64_t table = cpu_.state.cr3 & pte::address;
  unsigned level = mode == PagingMode::level5 ? 5 : 4;
  if (mode == PagingMode::pae) {
    std::uint64_t pdpte = cpu_.state.pdpte[(linear_ >> 30) & 3];
    if ((pdpte & pte::present) == 0) return fault(0);
    table = pdpte & pte::address;
    level = 2;
  }
  std::uint64_t reservedEverywhere = reservedAtAllLevels();
  for (;; --level) {
    unsigned shift = 12 + 9 * (level - 1);
    std::uint64_t entry = readEntry(table + ((linear_ >> shift) & 511) * 8, 8);
    if ((entry & pte::present) == 0) return fault(0);
    bool leaf =
        level == 1 || ((entry & pte::pageSize) != 0 && (level == 2 || (level == 3 && cpu_.model->gigabytePages)));
    if ((entry & (reservedEverywhere | reservedAt(level, leaf))) != 0) return fault(pf::present | pf::reserved);
    combine(entry);
    if (leaf) {
      std::uint64_t size = 1ull << shift;
      return finish(entry, entry & pte::address & ~(size - 1), size, 8);
    }
    table = entry & pte::address;
  }
}

Attempt Walker::walk32() {
  const CpuState& state = cpu_.state;
  std::uint64_t linear = linear_ & 0xffff'ffff;
  std::uint64_t pde = readEntry((state.cr3 & 0xffff'f000) + (linear >> 22) * 4, 4);
  if ((pde & pte::present) == 0) return fault(0);
  combine(pde);
  if ((pde & pte::pageSize) != 0 && (state.cr4 & cr4::pse) != 0) {
    // PSE-36 (SDM vol. 3, 4.3): bits 13-20 are address bits 32-39 as far as the CPU has them.
    unsigned bits = cpu_.model->physicalAddressBits < 40 ? cpu_.model->physicalAddressBits : 40;
    std::uint64_t reserved = bitRange(bits - 19, 21);
    if ((pde & reserved) != 0) return fault(pf::present | pf::reserved);
    return finish(pde, (pde & 0xffc0'0000) | (pde & bitRange(13, 20)) << 19, 4_MiB, 4);
  }
  std::uint64_t entry = readEntry((pde & 0xffff'f000) + ((linear >> 12) & 1023) * 4, 4);
  if ((entry & pte::present) == 0) return fault(0);
  combine(entry);
  return finish(entry, entry & 0xffff'f000, kPageSize, 4);
}

Attempt Walker::finish(std::uint64_t leaf, std::uint64_t pageBase, std::uint64_t pageSize, unsigned entrySize) {
  out_.gpa = (pageBase + (linear_ & (pageSize - 1))) & cpu_.memory->cpuAddressMask();
  out_.pageSize = pageSize;
  out_.user = (allOf_ & pte::user) != 0;
  out_.writable = (allOf_ & pte::writable) != 0;
  out_.noExecute = (anyOf_ & pte::noExecute) != 0;
  out_.global = (leaf & pte::global) != 0 && (cpu_.state.cr4 & cr4::pge) != 0;
  out_.dirty = (leaf & pte::dirty) != 0 || access_ == Access::write;
  out_.protectionKey = longModePaging() ? (leaf >> 59) & 15 : 0;
  bool keyed = violatesKey(cpu_, out_, access_, rights_);
  if (keyed || violatesRights(cpu_, out_, access_, rights_)) {
    return fault(pf::present | (keyed ? pf::protectionKey : 0));
  }
  bool done = (allOf_ & pte::accessed) != 0 && (access_ != Access::write || (leaf & pte::dirty) != 0);
  return done ? Attempt::done : setAccessedDirty(entrySize);
}

Attempt Walker::setAccessedDirty(unsigned entrySize) {
  for (unsigned i = 0; i < depth_; ++i) {
    bool leaf = i + 1 == depth_;
    std::uint64_t bits = pte::accessed | (leaf && access_ == Access::write ? pte::dirty : 0);
    if ((entries_[i].value & bits) != bits && !setBits(entries_[i], bits, entrySize)) return Attempt::retry;
  }
  return Attempt::done;
}

template <class T>
bool compareAndSet(std::byte* at, std::uint64_t expected, std::uint64_t bits, bool force) {
  auto* entry = reinterpret_cast<T*>(at);
  if (force) {
    __atomic_fetch_or(entry, static_cast<T>(bits), __ATOMIC_SEQ_CST);
    return true;
  }
  T old = static_cast<T>(expected);
  return __atomic_compare_exchange_n(entry, &old, static_cast<T>(expected | bits), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED);
}

// False: the entry is not what the walk saw any more.
bool Walker::setBits(const EntryRef& entry, std::uint64_t bits, unsigned entrySize) {
  if (entry.offset == GuestMemory::kNoOffset || cpu_.memory->isRomOffset(entry.offset)) return true;
  std::byte* at = ramPointerForWrite(cpu_, entry.offset);
  bool done = entrySize == 8 ? compareAndSet<std::uint64_t>(at, entry.value, bits, forceBits_)
                             : compareAndSet<std::uint32_t>(at, entry.value, bits, forceBits_);
  if (done) wroteTo(cpu_, at, entrySize);
  return done;
}

}  // namespace

std::uint64_t reservedAddressBits(const Cpu& cpu) {
  return bitRange(cpu.model->physicalAddressBits, 51);
}

bool allows(const Cpu& cpu, const PageTranslation& page, Access access, Rights rights) {
  return !violatesKey(cpu, page, access, rights) && !violatesRights(cpu, page, access, rights);
}

bool walk(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, PageTranslation& out) {
  if ((cpu.state.cr0 & cr0::pg) == 0) {
    out = {linear & cpu.memory->cpuAddressMask(), kPageSize, true, true, false, false, true, 0};
    return true;
  }
  return Walker(cpu, linear, access, rights, out).run();
}

bool translate(Cpu& cpu, std::uint64_t linear, Access access, Privilege privilege, PageTranslation& out) {
  Rights rights = access == Access::execute ? fetchRights(cpu) : rightsFor(cpu, privilege);
  if (rights == Rights::userAligned) rights = Rights::user;  // alignment is the access's business
  return walk(cpu, linear, access, rights, out);
}

std::uint64_t readPhysical(Cpu& cpu, std::uint64_t gpa, unsigned size) {
  std::uint64_t offset = cpu.offsetOf(Gpa{gpa & cpu.memory->cpuAddressMask()});
  if (offset == GuestMemory::kNoOffset) return size == 8 ? ~0ull : 0xffff'ffffu;
  return loadHost(cpu.memory->cpuRw() + offset, size);
}

// SDM vol. 3, 4.4.1 and table 4-8.
bool loadPdptes(Cpu& cpu, std::uint64_t cr3) {
  std::uint64_t loaded[4];
  for (unsigned i = 0; i < 4; ++i) {
    loaded[i] = readPhysical(cpu, (cr3 & 0xffff'ffe0) + 8 * i, 8);
    std::uint64_t reserved = bitRange(1, 2) | bitRange(5, 8) | bitRange(52, 63) | reservedAddressBits(cpu);
    if ((loaded[i] & pte::present) != 0 && (loaded[i] & reserved) != 0) return false;
  }
  for (unsigned i = 0; i < 4; ++i) cpu.state.pdpte[i] = loaded[i];
  return true;
}

}  // namespace lodge::x86
