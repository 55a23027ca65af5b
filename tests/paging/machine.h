// SPDX-License-Identifier: Apache-2.0
// A guest of two vCPUs that runs one operation at a time, and its page tables.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace lodge::paging {

/// How the guest pages: SDM vol. 3, 4.3 to 4.5.
enum class Paging : std::uint8_t { bits32, pae, bits64 };

inline constexpr unsigned kVcpus = 4, kSpaces = 3;
/// Guest-physical layout: tables from 0 on, the kernel's page, user code and stack, frames to be mapped; a 1 GiB page.
inline constexpr std::uint64_t kTablesEnd = 0x40000, kKernel = 0x100000, kUser = 0x120000, kFrames = 0x200000,
                               kLargeFrames = 0x400000, kHugeFrame = 1_GiB, kMmio = 0xd000'0000, kHugeMmio = 3_GiB;
inline constexpr unsigned kFrameCount = 16, kLargeFrameCount = 2, kMmioFrames = 2;
inline constexpr std::uint64_t kKernelLinear = 0xffff'ffff'8000'0000, kUserLinear = 0x400000;  ///< with 64 bits
/// Three regions of two slots each (what a page table maps): of each address space; low and shared; high and shared.
inline constexpr std::array<std::uint64_t, 3> kRegions = {0x10'0000'0000, 0x7f00'0000'0000, 0xffff'9000'0000'0000};
inline constexpr std::array<unsigned, 5> kPages = {0, 1, 2, 510, 511};  ///< of a slot, that are used

/// Where things are in linear addresses, and what tables look like.
struct Layout {
  Paging paging;
  int top;             ///< the root's level; a page table's is 0
  unsigned indexBits;  ///< of a table below the root
  unsigned entryBytes;
  std::uint64_t kernel;  ///< the kernel's pages; the tables follow at +2 MiB
  std::uint64_t user;
  std::array<std::uint64_t, 3> regions;
  std::array<unsigned, 5> slotPages;
  std::vector<std::uint64_t> pages;  ///< those in use, in order; adjacent ones follow each other

  static const Layout& of(Paging paging);
  std::uint64_t tables() const { return kernel + 2_MiB; }
  unsigned shift(int level) const { return 12 + indexBits * static_cast<unsigned>(level); }
  std::uint64_t slotBytes() const { return 1ull << shift(1); }
  std::uint64_t index(std::uint64_t linear, int level) const {
    return (linear >> shift(level)) & ((1u << indexBits) - 1);
  }
  /// The index in pages of the page with a linear address; -1 if it is not in use.
  int pageAt(std::uint64_t linear) const;
};

/// Code at the start of the kernel's and the user's stubs, one after the other.
enum class Stub : unsigned {
  load1,
  load4,
  load8,
  store1,
  store4,
  store8,
  add4,  ///< LOCK XADD
  call,
  invlpg,
  invpcid,
  writeCr3,
  writeCr4,
  writeCr0,
  writePkru,
  jump,  ///< these and the next are isolation_main.cpp's
  push,  ///< RSP is the address, here and in the next two
  pop,
  ret,
  loadFs,   ///< FS' base is the address
  loadSum,  ///< of RBX and RAX
  vector,
  copy,  ///< 64 bytes onto themselves
  kCount
};

struct Operation {
  Stub stub = Stub::load8;
  bool user = false;
  bool accessCheckOff = false;           ///< EFLAGS.AC
  std::uint64_t address = 0, value = 0;  ///< RBX; RAX
};

struct Outcome {
  unsigned vector = 0;  ///< 0: done
  std::uint64_t errorCode = 0, address = 0, value = 0;
};

/// What a device at kMmio holds: reads of a byte are a function of its address, writes are kept.
std::uint8_t mmioByte(std::uint64_t gpa);

/// What a machine is made with. `keys`: the CPU has protection keys, which no model of Lodge's offers.
struct MachineKind {
  Paging paging = Paging::bits64;
  bool pcide = false, keys = false;
};

class Machine {
 public:
  static Result<std::unique_ptr<Machine>> create(std::string_view engine, std::string trace, MachineKind kind);
  ~Machine();
  Outcome run(unsigned vcpu, const Operation& operation);
  std::uint64_t read(std::uint64_t gpa) const;
  void write(std::uint64_t gpa, std::uint64_t value);
  std::byte* physical(std::uint64_t gpa, std::size_t bytes) { return memory_->span(Gpa{gpa}, bytes); }
  /// A device has written through physical().
  void deviceWrote(std::uint64_t gpa, std::size_t bytes) { memory_->written(Gpa{gpa}, bytes); }
  const Layout& layout() const { return layout_; }
  const x86::CpuModel& model() const { return *model_; }
  std::uint64_t ramEnd() const { return memory_->size(); }
  /// A table entry, of 4 or 8 bytes.
  std::uint64_t entry(std::uint64_t slot) const;
  void setEntry(std::uint64_t slot, std::uint64_t value);
  /// Where the entry of `linear` in an address space is, whatever the levels above hold now: layout().top to 0 (a PTE).
  std::uint64_t slotOf(unsigned space, std::uint64_t linear, int level) const;
  /// The table that belongs below an entry, whether or not the entry shows it now.
  std::uint64_t tableOf(std::uint64_t slot) const { return tables_.at(slot); }
  std::uint64_t root(unsigned space) const { return roots_[space]; }
  x86::Cpu& cpu(unsigned vcpu) { return vcpus_[vcpu]->cpu(); }
  Vcpu& vcpu(unsigned index) { return *vcpus_[index]; }
  std::map<std::uint64_t, std::uint8_t>& mmioWrites();
  std::uint64_t stubAddress(Stub stub, bool user) const;
  void reset(unsigned vcpu, bool user);

 private:
  class Environment;
  explicit Machine(const MachineKind& kind);
  std::uint64_t allocate();
  std::uint64_t make(unsigned space, std::uint64_t linear);
  void share(std::uint64_t linear);
  void buildTables();
  void buildCpu(unsigned vcpu);
  void buildKernel();
  void writeStubs(std::uint64_t gpa);

  MachineKind kind_;
  const Layout& layout_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<Environment> environment_;
  std::unique_ptr<Engine> engine_;
  std::array<std::unique_ptr<Vcpu>, kVcpus> vcpus_;
  std::array<std::uint64_t, kSpaces> roots_{};
  std::map<std::uint64_t, std::uint64_t> tables_;  ///< by the slot above
  std::uint64_t next_ = 0x1000;
};

}  // namespace lodge::paging
