// SPDX-License-Identifier: Apache-2.0
// Random changes of page tables and control registers, every kind of invalidation, and accesses of every kind by
// several vCPUs; each access must do what a walk of the tables says.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "tests/paging/model.h"

namespace lodge::paging {

inline constexpr unsigned kCode = 16, kCodeAcross = 4093;  ///< offsets in each frame of MOV EAX, imm32; RET

class Fuzz {
 public:
  Fuzz(Machine& machine, std::uint64_t seed, const MachineKind& kind, bool verbose);
  /// What was wrong; "" if nothing was.
  std::string run(std::uint64_t count);
  std::uint64_t accesses = 0, faults = 0, edits = 0, flushes = 0;

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  bool wide() const { return kind_.paging == Paging::bits64; }
  CpuModel& cpu() { return cpus_[vcpu_]; }
  const std::vector<std::uint64_t>& pages() const { return machine_.layout().pages; }
  bool isDevice(std::uint64_t gpa) const { return gpa >= machine_.ramEnd(); }
  std::vector<std::byte> tables() const {
    const std::byte* p = machine_.physical(0, kTablesEnd);
    return {p, p + kTablesEnd};
  }
  void fillFrame(std::uint64_t frame);
  std::uint64_t flags(bool mayBeGlobal, bool leaf);
  std::uint64_t largePage(int level, bool mayBeGlobal);
  void edit();
  void writeEntry(std::uint64_t slot, std::uint64_t value);
  std::string system(const Operation& operation, unsigned vector = 0);
  std::string flush();
  std::string switchSpace();
  std::string control();
  std::string switchPcids();
  std::string writeCr4(bool& bit, bool everything);
  std::string access();
  std::string makeFresh(std::uint64_t linear);
  std::string check(const Operation& operation, Kind kind, unsigned bytes);
  std::string checkTables(const Walk* walks, unsigned count, Kind kind, bool faulted);
  std::uint8_t readByte(std::uint64_t gpa) const {
    return isDevice(gpa) ? mmioByte(gpa) : static_cast<std::uint8_t>(*machine_.physical(gpa, 1));
  }
  std::string text(const Operation& o) const;

  Machine& machine_;
  std::mt19937_64 random_;
  MachineKind kind_;
  bool verbose_;
  std::vector<CpuModel> cpus_;
  unsigned vcpu_ = 0;
  std::vector<std::uint64_t> frames_;
  std::vector<std::byte> tables_;  ///< as they should be
};

}  // namespace lodge::paging
