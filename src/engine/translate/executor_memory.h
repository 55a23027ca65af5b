// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/translate/executor_process.h"
#include "x86/cpu.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

/// What the guest's page tables say of a user's page now, without a mark that anybody looked.
struct PageLook {
  std::uint64_t offset;  ///< in the file of guest RAM, of the page of 4 KiB
  std::uint64_t size;    ///< 4 KiB, 2 MiB or 1 GiB
  bool writable, noExecute;
  bool accessed;  ///< at all levels
  bool dirty;
  bool writableAbove;  ///< by the levels above
};
/// False: no user's page in guest RAM. 64-bit paging with four levels. `table`: the lowest table that was looked at.
bool lookAtPage(const x86::Cpu& cpu, std::uint64_t linear, PageLook& out, std::uint64_t* table = nullptr);

/// Which of the guest's pages an executor shows: a TLB, kept right by the same rules. Changes are asked of the process,
/// which makes them before guest code runs again. Used by the vCPU's thread.
class ExecutorMemory {
 public:
  ExecutorMemory(ExecutorProcess& process, GuestMemory& memory);
  /// False: there is no memory for it.
  bool isValid() const { return written_ != nullptr; }

  /// Shows the page, and some next to it, after a fault there. False: the interpreter must make the access.
  bool fill(x86::Cpu& cpu, std::uint64_t linear, bool write);
  /// Shows a page of code for execution, read only: it is watched. False: the host has no room.
  bool fillCode(x86::Cpu& cpu, std::uint64_t linear, std::uint64_t offset);
  bool isExecutable(std::uint64_t page) const {
    auto found = pages_.find(page);
    return found != pages_.end() && found->second.executable;
  }
  /// The guest said that the translation of this page may have changed.
  void dropPage(std::uint64_t linear);
  /// It said so of all pages: those whose translation is still what it was stay.
  void revalidate(const x86::Cpu& cpu);
  /// The RAM page may not be written to any more without notice.
  void protect(std::uint64_t ramPage);
  /// Whether the executor may be able to write to the page of RAM now.
  bool mayWrite(std::uint64_t ramPage) const {
    return written_ && __atomic_load_n(&written_[ramPage], __ATOMIC_SEQ_CST) != 0;
  }
  void dropAll();
  /// Of memory that says what is shown.
  std::uint64_t bytes() const {
    constexpr std::uint64_t kPage = 64, kWriter = 56;  // in the maps
    return (pages_.size() + large_.size()) * kPage + writers_.size() * kWriter;
  }
  /// Before guest code runs: everything that was asked can be done.
  void settle() {
    if (changes_ > kMostChanges) overflow_ = true;  // of what is hidden, too
    if (overflow_) dropAll();
  }

 private:
  struct Shown {
    std::uint64_t offset;
    bool writable, executable = false;
  };
  static constexpr std::uint64_t kLarge = 2_MiB;
  static constexpr std::uint64_t kMostChanges = 30'000;  ///< each may make one mapping more (vm.max_map_count)

  bool fillLarge(x86::Cpu& cpu, std::uint64_t linear, const x86::PageTranslation& page, bool writable);
  bool maySeeWrites(std::uint64_t offset) const;
  void dropOne(std::uint64_t linear);
  void fillAround(x86::Cpu& cpu, std::uint64_t linear);
  void show(std::uint64_t linear, std::uint64_t length, std::uint64_t offset, bool writable, bool executable = false);
  void hide(std::uint64_t linear, std::uint64_t length);
  void noteWritable(std::uint64_t offset, std::uint64_t length);
  void setPage(std::uint64_t linear, std::uint64_t offset, bool writable);
  static bool isStill(const x86::Cpu& cpu, std::uint64_t linear, const Shown& shown, std::uint64_t size);

  ExecutorProcess& process_;
  GuestMemory& memory_;
  std::unordered_map<std::uint64_t, Shown> pages_;                 ///< of 4 KiB, by linear address
  std::unordered_map<std::uint64_t, Shown> large_;                 ///< of 2 MiB
  std::unordered_multimap<std::uint64_t, std::uint64_t> writers_;  ///< linear addresses by RAM page; some stale
  struct Free {
    void operator()(std::uint8_t* p) const { std::free(p); }
  };
  /// From calloc(): what is not touched takes no memory, however large the guest is.
  std::unique_ptr<std::uint8_t[], Free> written_;  ///< by RAM page: it was shown writable once
  /// Those that are shown in smaller pieces than the guest's page has: a flush of any address in that is of all.
  std::vector<std::uint64_t> cuts_;
  std::uint64_t changes_ = 0;  ///< since all was dropped
  bool overflow_ = false;      ///< more was to be asked than there is room for: all goes
};

}  // namespace lodge::translate
