// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "x86/cpu_model.h"
#include "x86/model/host_cpu.h"

namespace lodge::x86 {

/// CPUID leaves under construction, kept sorted by leaf and subleaf.
class LeafTable {
 public:
  /// The entry, added with zeros if it is not there. References are good until the next call.
  CpuidEntry& leaf(std::uint32_t leaf) { return entry(leaf, 0, false); }
  CpuidEntry& subleaf(std::uint32_t leaf, std::uint32_t subleaf) { return entry(leaf, subleaf, true); }
  void setBit(std::uint32_t leaf, std::uint32_t subleaf, bool perSubleaf, CpuidRegister reg, unsigned bit);
  bool has(std::uint32_t leaf, std::uint32_t subleaf) const;
  std::vector<CpuidEntry> take() { return std::move(entries_); }
  /// Sets EAX of the leaves 0, 0x40000000 and 0x80000000 to the last leaf of their range.
  void setLimits();

 private:
  CpuidEntry& entry(std::uint32_t leaf, std::uint32_t subleaf, bool perSubleaf);

  std::vector<CpuidEntry> entries_;
};

/// What the topology and cache leaves are made from: one socket of `cpus` cores without hyper-threads.
void addTopology(LeafTable& table, CpuVendor vendor, unsigned cpus);
void addCaches(LeafTable& table, CpuVendor vendor, unsigned cpus);
/// The leaves of KVM's paravirtual interface, and 0x40000010.
void addHypervisor(LeafTable& table, std::uint64_t tscHz);

}  // namespace lodge::x86
