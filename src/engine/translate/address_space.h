// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "engine/translate/code_map.h"
#include "engine/translate/frame.h"
#include "engine/translate/soft_tlb.h"
#include "x86/cpu.h"

namespace lodge::translate {

/// What lies before every soft TLB table.
struct TableHeader {
  std::uint64_t tlbLog[TlbTable::kLogCapacity];
  std::uint64_t codeLog[2][CodeMap::kLogCapacity];
  ReturnCache returns[2];  ///< the kernel's; or of 64-bit and of 32-bit user code
};
inline constexpr std::uint64_t kTableHeaderBytes = 1_MiB;
static_assert(sizeof(TableHeader) <= kTableHeaderBytes);

/// Displacements in translated code.
namespace layout {
// From RSP (CpuState), downwards: the Frame, the kernel's code map (512 GiB); upwards: the rest of Cpu, a TableHeader,
// the kernel's soft TLB (256 GiB).
inline constexpr std::int32_t kernelCodeTop = -FRAME_SIZE;
inline constexpr std::int32_t kernelHeader = static_cast<std::int32_t>(alignUp(sizeof(x86::Cpu), kPageSize));
inline constexpr std::int32_t kernelTable = kernelHeader + static_cast<std::int32_t>(kTableHeaderBytes);
// From the host's GS base, downwards: a TableHeader, the code map of 32-bit code (8 MiB), that of 64-bit code (256
// GiB); upwards: the user's soft TLB, and the kernel's (the same memory as above).
inline constexpr std::int32_t user32CodeTop = -static_cast<std::int32_t>(kTableHeaderBytes);
inline constexpr std::int32_t user64CodeTop = user32CodeTop - static_cast<std::int32_t>(8_MiB);
inline constexpr std::int32_t kernelReturns = kernelHeader + static_cast<std::int32_t>(offsetof(TableHeader, returns));
inline constexpr std::int32_t user64Returns =
    static_cast<std::int32_t>(offsetof(TableHeader, returns)) - static_cast<std::int32_t>(kTableHeaderBytes);
inline constexpr std::int32_t user32Returns = user64Returns + static_cast<std::int32_t>(sizeof(ReturnCache));
inline constexpr unsigned kernelCodeBits = 36, user64CodeBits = 35, user32CodeBits = 20;
}  // namespace layout

/// The lower half of one guest address space (PCID) on one vCPU.
struct AddressSpace {
  std::byte* area = nullptr;  ///< null: not mapped yet
  TlbTable user;
  CodeMap user64, user32;
  std::uint16_t pcid = 0;
  bool used = false;
  std::uint64_t lastUse = 0;
  /// Supervisor pages in `user`: dropped before user code runs.
  static constexpr unsigned kSupervisorPages = 64;
  std::uint64_t supervisorPages[kSupervisorPages];
  unsigned supervisorCount = 0;

  std::uint64_t gsBase() const;
  /// Gives all memory back to the host but what the return caches take.
  void release();
};

/// All soft TLB and branch tables of one vCPU, and the memory around its CpuState that translated code addresses from
/// RSP. create() is ordinary code; everything else runs on the vCPU's thread with guest vector registers live.
class AddressSpaces {
 public:
  /// `missTable`: an entry table (code_map.h) full of the miss thunk; `spaces`: how many PCIDs to keep tables for, 1 to
  /// kSpaces. Errors: outOfMemory with what to do where the host limits address space.
  static Result<std::unique_ptr<AddressSpaces>> create(std::uint64_t missTable, unsigned spaces);
  ~AddressSpaces();
  AddressSpaces(const AddressSpaces&) = delete;
  AddressSpaces& operator=(const AddressSpaces&) = delete;

  /// Memory for the Cpu, zeroed; a Frame lies before it.
  void* cpuMemory() const { return block_ + kCpuOffset; }
  Frame& frame() const { return *reinterpret_cast<Frame*>(block_ + kCpuOffset - FRAME_SIZE); }

  AddressSpace& current() { return *current_; }
  /// Makes the space of `pcid` current, a fresh one if there is none. False: the host refused memory (nothing changed).
  bool switchTo(std::uint16_t pcid);
  AddressSpace* find(std::uint16_t pcid);
  /// Sets the host's GS base for the current space: after switchTo(), and when another thread takes over.
  void loadGsBase();

  TlbTable& kernelTable() { return kernel_; }
  /// Null for kernelAc, which has none.
  CodeMap* code(ExecMode mode) {
    switch (mode) {
      case ExecMode::kernel:
        return &kernelCode_;
      case ExecMode::user64:
        return &current_->user64;
      case ExecMode::user32:
        return &current_->user32;
      default:
        return nullptr;
    }
  }

  /// One page of the current space and of global pages everywhere. Returns whether it was known to hold code.
  bool dropPage(std::uint64_t linear);
  bool dropPage(AddressSpace& space, std::uint64_t linear);
  /// The current space, and the kernel's non-global pages; or with global pages.
  void dropCurrent(bool globalToo);
  void dropSpace(AddressSpace& space);
  void dropKernel(bool globalToo);
  void dropEverything();
  /// Code maps only: the code cache was reset, or the mode changed in a way that is not in ExecMode.
  void dropCode();
  /// The same, and the memory of code maps and of users' soft TLBs goes back to the host: what is in use comes back by
  /// misses, far fewer than there are translations to make again.
  void releaseMemory();
  /// Translated code was dropped.
  void dropReturns();
  void noteSupervisorPage(std::uint64_t linear);
  /// Before user code runs.
  void dropSupervisorPages();
  /// A low-half page with the G bit was entered: flushes of single pages must look in every space.
  void noteLowGlobal() { lowGlobal_ = true; }

  static constexpr unsigned kSpaces = 8;

 private:
  AddressSpaces() = default;
  bool mapSpace(AddressSpace& space);
  static void replaceUser(void* space);
  static void replaceKernel(void* spaces);

  static constexpr std::uint64_t kCpuOffset = (std::uint64_t{8} << layout::kernelCodeBits) + FRAME_SIZE;

  std::byte* block_ = nullptr;  // kernel code map, Frame, Cpu, TableHeader, kernel table
  UniqueFd kernelFile_;
  std::uint64_t missTable_ = 0;
  TlbTable kernel_;
  CodeMap kernelCode_;
  AddressSpace spaces_[kSpaces];
  unsigned spaceCount_ = kSpaces;
  AddressSpace* current_ = nullptr;
  std::uint64_t uses_ = 0;
  bool lowGlobal_ = false;
};

}  // namespace lodge::translate
