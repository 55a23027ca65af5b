// SPDX-License-Identifier: Apache-2.0
// What the test guest is made of: page tables, descriptor tables, handlers, and the state that it starts with.
#include <algorithm>
#include <array>
#include <vector>

#include "tests/differential/descriptors.h"
#include "tests/differential/guest.h"
#include "tests/differential/guest_layout.h"
#include "tests/halting_guest.h"
#include "x86/virtual_memory.h"

namespace lodge::differential {

using namespace x86;
using namespace halting_guest;

std::uint64_t Guest::allocateTable() {
  std::uint64_t table = nextTable_;
  nextTable_ += kPageSize;
  return table;
}

std::uint64_t Guest::entryOf(std::uint64_t linear) {
  std::uint64_t table = root_;
  for (int level = kind_.protectedMode ? 2 : 3; level > 0; --level) {
    std::uint64_t entry = 0;
    (void)memory_->readObject(Gpa{table + ((linear >> (12 + 9 * level)) & 511) * 8}, entry);
    table = entry & 0xffff'ffff'f000;
  }
  return table + ((linear >> 12) & 511) * 8;
}

void Guest::map(std::uint64_t linear, std::uint64_t physical, std::uint64_t length, std::uint64_t flags) {
  for (std::uint64_t done = 0; done < length; done += kPageSize) {
    std::uint64_t table = root_;
    int top = kind_.protectedMode ? 2 : 3;
    for (int level = top; level > 0; --level) {
      std::uint64_t slot = table + (((linear + done) >> (12 + 9 * level)) & 511) * 8;
      std::uint64_t entry = 0;
      (void)memory_->readObject(Gpa{slot}, entry);
      if ((entry & kPresent) == 0) {
        // PAE's four entries have no such bits.
        entry = allocateTable() | kPresent | (level == 2 && top == 2 ? 0 : kWrite | kUser | kAccessedDirty);
        (void)memory_->writeObject(Gpa{slot}, entry);
      }
      table = entry & 0xffff'ffff'f000;
    }
    std::uint64_t slot = table + (((linear + done) >> 12) & 511) * 8;
    (void)memory_->writeObject(Gpa{slot}, (physical + done) | flags | kAccessedDirty | kPresent);
  }
}

void Guest::buildTables() {
  nextTable_ = kTables;
  root_ = allocateTable();
  map(kernelBase(), kKernel, kKernelBytes, kWrite);
  auto mapAll = [this](std::uint64_t code, std::uint64_t data, std::uint64_t patch, std::uint64_t user) {
    map(code, kCode, kCodeBytes, user);
    map(data, kData, kDataBytes, user | kWrite | kNoExecute);
    if (kind_.mmio) map(data + kDataBytes, kMmio, kPageSize, user | kWrite | kNoExecute);
    map(data + (kReadOnlyBase - kDataBase), kReadOnly, kReadOnlyBytes, user | kNoExecute);
    map(patch, kPatch, kPatchBytes, user | kWrite);
  };
  mapAll(kCode32Base, kDataAlias, kPatchAlias, kUser);
  if (!kind_.protectedMode) mapAll(kCodeBase, kDataBase, kPatchBase, kUser);
  if (upper() != 0) mapAll(kCodeBase + upper(), kDataBase + upper(), kPatchBase + upper(), 0);
  if (kind_.kernel) {
    std::uint64_t entries = kind_.protectedMode ? kEntriesAlias : kEntriesBase;
    std::uint64_t table = entryOf(dataBase()) & ~kPageMask;
    map(entries, table, kPageSize, kWrite | kNoExecute);
    entries_.resize(kPageSize / 8);
    (void)memory_->read(Gpa{table}, std::as_writable_bytes(std::span(entries_)));
  }
  auto readOnly = dataPattern(1).first<kReadOnlyBytes>();
  readOnly_.assign(readOnly.begin(), readOnly.end());
  (void)memory_->write(Gpa{kReadOnly}, readOnly_);

  buildGdt();
  buildGates();
}

std::uint64_t Guest::kernelBase() const {
  return kind_.protectedMode ? kKernel32Base : 0xffff'ffff'8000'0000;
}

void Guest::buildGdt() {
  std::array<std::uint64_t, kGdtEntries> gdt = visibleGdt();
  gdt[kKernelCs >> 3] = kind_.protectedMode ? kKernelCode32 : kKernelCode64;
  gdt[kKernelSs >> 3] = kKernelData;
  // The user's, as every Linux has them.
  gdt[kUserCs32 >> 3] = kUserCode32;
  gdt[kUserSs >> 3] = kUserData;
  gdt[kUserCs >> 3] = kUserCode64;
  auto putSystem = [&](std::uint16_t selector, SystemSegment type, std::uint64_t base, std::uint64_t limit) {
    std::ranges::copy(systemDescriptor(type, base, limit), gdt.begin() + (selector >> 3));
  };
  putSystem(kTr, SystemSegment::busyTss, kernelBase() + kTss, 0x67);
  if (kind_.segments16) {
    auto ldt = segments16();
    (void)memory_->write(Gpa{kKernel + kLdt}, std::as_bytes(std::span(ldt)));
    putSystem(kLdtr, SystemSegment::ldt, kernelBase() + kLdt, kLdtBytes - 1);
  }
  (void)memory_->write(Gpa{kKernel + kGdt}, std::as_bytes(std::span(gdt)));
  (void)memory_->writeObject(Gpa{kKernel + kTss + 0x66}, std::uint16_t{0x68});
  std::uint64_t stack = kernelBase() + kStackTop;  // RSP0; or ESP0 and SS0
  (void)memory_->writeObject(Gpa{kKernel + kTss + 4},
                             kind_.protectedMode ? stack | std::uint64_t{kKernelSs} << 32 : stack);
  if (!kind_.protectedMode)
    (void)memory_->writeObject(Gpa{kKernel + kTss + 36}, kernelBase() + kInterruptStackTop);  // IST1
}

/// In kernel mode handlers have a stack of their own: a snippet's RSP may be anywhere.
void Guest::buildGates() {
  writeHaltingGates(*memory_, {!kind_.protectedMode, kKernel + kIdt, kKernel + kStubs, kernelBase() + kStubs,
                               upper() != 0 ? 1u : 0u});
}

void Guest::initialState(CpuState& state) const {
  state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::pg;
  state.cr3 = root_;
  state.cr4 =
      cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | (hostHasFsgsbase() ? cr4::fsgsbase : 0);
  state.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
  if (kind_.protectedMode) {
    state.efer = efer::nxe;
    state.cr4 &= ~cr4::fsgsbase;
    for (unsigned i = 0; i < 4; ++i) (void)memory_->readObject(Gpa{root_ + 8 * i}, state.pdpte[i]);
  }
  state.xcr0 = model_->xcr0Supported & kVectorComponents;
  state.gdtr = {kernelBase() + kGdt, kGdtEntries * 8 - 1, 0};
  state.idtr = {kernelBase() + kIdt, 0xfff, 0};
  state.tr = {kernelBase() + kTss, 0x67, kTr, 0x8b};
  state.ldtr = {};
  if (kind_.segments16) state.ldtr = {kernelBase() + kLdt, kLdtBytes - 1, kLdtr, 0x82};
  for (Segment s : {es, ds}) state.segment[s] = {0, 0xffffffff, kUserSs, 0xc0f3};
  for (Segment s : {fs, gs}) state.segment[s] = {0, 0, 0, 0};
  state.segment[cs] = {0, 0xffffffff, kUserCs, 0xa0fb};
  state.segment[ss] = {0, 0xffffffff, kUserSs, 0xc0f3};
  state.cpl = 3;
  state.activity = Activity::running;
}

/// 64-bit code at CPL 0, as a kernel's.
void Guest::kernelState(CpuState& state) const {
  state.segment[cs] = {0, 0xffffffff, kKernelCs, 0xa09b};
  state.segment[ss] = {0, 0xffffffff, kKernelSs, 0xc093};
  state.cpl = 0;
  if (kind_.protectedMode) {
    state.segment[cs].attributes = 0xc09b;
    return;
  }
  state.cr4 |= cr4::smap;
  state.star = std::uint64_t{kUserSs - 8} << 48 | std::uint64_t{kKernelCs} << 32;
  state.lstar = kernelBase() + kStubs + 0x81 * kHandlerBytes;
  state.sfmask = 0x40700;
  state.kernelGsBase = kDataBase + 64;
  state.tscOffset = 0;
}
}  // namespace lodge::differential
