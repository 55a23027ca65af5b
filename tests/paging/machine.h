// SPDX-License-Identifier: Apache-2.0
// A guest of two vCPUs that runs one operation at a time, and its page tables.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>

#include "engine/engine.h"

namespace lodge::paging {

inline constexpr unsigned kVcpus = 2, kSpaces = 3;
/// Guest-physical layout: tables from 0 on, the kernel's page, user code and stack, frames to be mapped.
inline constexpr std::uint64_t kTablesEnd = 0x40000, kKernel = 0x100000, kUser = 0x120000, kFrames = 0x200000,
                               kLargeFrames = 0x400000, kMmio = 0xd000'0000;
inline constexpr unsigned kFrameCount = 16, kLargeFrameCount = 2, kMmioFrames = 2;
inline constexpr std::uint64_t kKernelLinear = 0xffff'ffff'8000'0000, kTablesLinear = kKernelLinear + 0x200000,
                               kUserLinear = 0x400000;
/// Three regions of two 2 MiB slots each: of each address space; low and shared; in the upper half and shared.
inline constexpr std::array<std::uint64_t, 3> kRegions = {0x10'0000'0000, 0x7f00'0000'0000, 0xffff'9000'0000'0000};
inline constexpr std::array<unsigned, 5> kPages = {0, 1, 2, 510, 511};  ///< of a slot, that are used

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

class Machine {
 public:
  static Result<std::unique_ptr<Machine>> create(std::string_view engine, std::string trace, bool pcide);
  ~Machine();
  Outcome run(unsigned vcpu, const Operation& operation);
  std::uint64_t read(std::uint64_t gpa) const;
  void write(std::uint64_t gpa, std::uint64_t value);
  std::byte* physical(std::uint64_t gpa, std::size_t bytes) { return memory_->span(Gpa{gpa}, bytes); }
  /// The table entry of `linear` in an address space: level 3 (PML4E) to 0 (PTE); levels above must be tables.
  std::uint64_t slotOf(unsigned space, std::uint64_t linear, int level) const;
  std::uint64_t root(unsigned space) const { return roots_[space]; }
  /// The page table that belongs to a 2 MiB slot, whether or not its PDE shows it now.
  std::uint64_t tableOf(unsigned space, std::uint64_t linear) const;
  x86::Cpu& cpu(unsigned vcpu) { return vcpus_[vcpu]->cpu(); }
  Vcpu& vcpu(unsigned index) { return *vcpus_[index]; }
  std::map<std::uint64_t, std::uint8_t>& mmioWrites();
  std::uint64_t stubAddress(Stub stub, bool user) const;
  void reset(unsigned vcpu, bool user);

 private:
  class Environment;
  Machine() = default;
  std::uint64_t allocate();
  std::uint64_t descend(std::uint64_t table, std::uint64_t linear, int level, int end);
  void map(std::uint64_t linear, std::uint64_t gpa, std::uint64_t flags);
  void build(bool pcide);
  void buildKernel();
  void writeStubs(std::uint64_t gpa);

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<Environment> environment_;
  std::unique_ptr<Engine> engine_;
  std::array<std::unique_ptr<Vcpu>, kVcpus> vcpus_;
  std::array<std::uint64_t, kSpaces> roots_{};
  std::map<std::uint64_t, std::uint64_t> tables_;  ///< by PDE slot
  std::uint64_t next_ = 0x1000;
};

}  // namespace lodge::paging
