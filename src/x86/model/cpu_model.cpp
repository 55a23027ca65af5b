// SPDX-License-Identifier: Apache-2.0
#include "x86/cpu_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "x86/model/feature_bits.h"
#include "x86/model/host_cpu.h"

namespace lodge::x86 {

namespace {

constexpr unsigned kPhysicalBits = 40, kLinearBits = 48;
constexpr std::uint64_t kAvxComponents = 7;  // x87, SSE, AVX

/// Builds the leaves of one model.
class Builder {
 public:
  Builder(CpuModel& model, Level level) : model_(model), level_(level) {}

  Status build() {
    if (Status s = features(); !s) return s;
    basic();
    cachesAndTopology();
    xsave();
    paravirtual();
    extended();
    std::sort(model_.leaves.begin(), model_.leaves.end(), [](const CpuidEntry& a, const CpuidEntry& b) {
      return a.leaf != b.leaf ? a.leaf < b.leaf : a.subleaf < b.subleaf;
    });
    return {};
  }

 private:
  CpuidEntry& entry(std::uint32_t leaf, std::uint32_t subleaf = 0, bool perSubleaf = false) {
    for (CpuidEntry& e : model_.leaves) {
      if (e.leaf == leaf && e.subleaf == subleaf) return e;
    }
    return model_.leaves.emplace_back(CpuidEntry{leaf, subleaf, 0, 0, 0, 0, perSubleaf});
  }

  static std::uint32_t& select(CpuidEntry& e, CpuidRegister r) {
    switch (r) {
      case CpuidRegister::eax:
        return e.eax;
      case CpuidRegister::ebx:
        return e.ebx;
      case CpuidRegister::ecx:
        return e.ecx;
      default:
        return e.edx;
    }
  }

  static bool hostHas(const FeatureBit& b) {
    CpuidResult r = hostCpuid(b.leaf, b.subleaf);
    CpuidEntry e{b.leaf, b.subleaf, r.eax, r.ebx, r.ecx, r.edx, false};
    return (select(e, b.where) >> b.bit & 1) != 0;
  }

  Status features() {
    std::string missing;
    for (const FeatureBit& b : featureBits()) {
      // Features of a lower level come with every higher one; RDSEED, SHA and the like are offered by v3 where the host
      // has them, since the level itself does not ask for them.
      bool required = b.level == Level::v2 || b.level == Level::v3 ? requiredByAbi(b) : b.level == Level::always;
      if (b.level > level_) continue;
      if (!b.emulated && !hostHas(b)) {
        if (required && level_ != Level::host && b.feature != Feature::base) missing += fmt::format(" {}", b.name);
        continue;
      }
      select(entry(b.leaf, b.subleaf, b.leaf == 7 || b.leaf == 0xd), b.where) |= 1u << b.bit;
      model_.features |= std::uint64_t{1} << static_cast<unsigned>(b.feature);
    }
    model_.features |= 1;
    if (!missing.empty()) {
      return Error(ErrorKind::unsupported,
                   fmt::format("CPU model '{}': this host's processor lacks{}", model_.name, missing))
          .withHint("choose --cpu host");
    }
    return {};
  }

  /// The level's own list (System V ABI for x86-64, table 3.1); the rest of a level is a bonus.
  static bool requiredByAbi(const FeatureBit& b) {
    static constexpr const char* kNames[] = {"pni",   "ssse3", "cx16", "sse4_1", "sse4_2", "popcnt", "fma", "movbe",
                                             "xsave", "avx",   "f16c", "bmi1",   "avx2",   "bmi2",   "abm"};
    return std::any_of(std::begin(kNames), std::end(kNames),
                       [&](const char* n) { return std::strcmp(n, b.name) == 0; });
  }

  bool amd() const { return model_.vendor == CpuVendor::amd; }

  void vendorString(CpuidEntry& e) const {
    const char* name = amd() ? "AuthenticAMD" : "GenuineIntel";
    std::memcpy(&e.ebx, name, 4);
    std::memcpy(&e.edx, name + 4, 4);
    std::memcpy(&e.ecx, name + 8, 4);
  }

  void basic() {
    // A generation whose speculation weaknesses need the fewest workarounds: the guest's code runs translated, and what
    // it trains are the translator's branches. AMD family 0x1a; Intel family 6, model 0x8f.
    std::uint32_t signature = amd() ? 0x00b00f20 : 0x000806f8;
    CpuidEntry& zero = entry(0);
    zero.eax = 0x16;
    vendorString(zero);
    CpuidEntry& one = entry(1);
    one.eax = signature;
    // CLFLUSH line of 64 bytes; the number of APIC ids; x86::cpuid() adds the CPU's own id.
    one.ebx = 8 << 8 | std::min(255u, std::bit_ceil(model_.cpus)) << 16;
    if (model_.cpus > 1) one.edx |= 1u << 28;
    entry(7, 0, true).eax = 1;
    entry(7, 1, true);
    entry(6).eax = 1u << 2;  // the APIC timer never stops
    CpuidEntry& ratio = entry(0x15);
    if (!amd()) {
      ratio.eax = 1;
      ratio.ecx = 1'000'000;
      ratio.ebx = static_cast<std::uint32_t>(model_.tscHz / 1'000'000);
      ratio.ebx = model_.tscHz % 1'000'000 == 0 ? ratio.ebx : 0;
      if (ratio.ebx == 0) ratio.eax = ratio.ecx = 0;
      entry(0x16).eax = static_cast<std::uint32_t>(model_.tscHz / 1'000'000);
    }
    CpuidEntry& monitorLeaf = entry(5);
    monitorLeaf.eax = monitorLeaf.ebx = 0;
  }

  struct Cache {
    std::uint32_t type, level, ways, sets, sharing;  // type: 1 data, 2 instruction, 3 unified
  };

  void cachesAndTopology() {
    const Cache caches[] = {{1, 1, 8, 64, 1}, {2, 1, 8, 64, 1}, {3, 2, 16, 1024, 1}, {3, 3, 16, 16384, model_.cpus}};
    std::uint32_t leaf = amd() ? 0x8000001d : 4;
    std::uint32_t index = 0;
    for (const Cache& c : caches) {
      CpuidEntry& e = entry(leaf, index++, true);
      std::uint32_t cores = amd() ? 0 : (std::bit_ceil(model_.cpus) - 1) << 26;
      e.eax = c.type | c.level << 5 | 1 << 8 | (std::bit_ceil(c.sharing) - 1) << 14 | cores;
      e.ebx = 63 | (c.ways - 1) << 22;
      e.ecx = c.sets - 1;
    }
    entry(leaf, index, true);
    auto shift = static_cast<std::uint32_t>(std::bit_width(model_.cpus - 1));
    for (std::uint32_t topology : {0xbu, 0x1fu}) {
      if (topology == 0x1f) continue;
      CpuidEntry& smt = entry(topology, 0, true);
      smt.eax = 0;
      smt.ebx = 1;
      smt.ecx = 1 << 8;
      CpuidEntry& core = entry(topology, 1, true);
      core.eax = shift;
      core.ebx = model_.cpus;
      core.ecx = 1 | 2 << 8;
      entry(topology, 2, true).ecx = 2;
    }
  }

  void xsave() {
    model_.xcr0Supported = model_.has(Feature::avx) ? kAvxComponents : 3;
    if (!model_.has(Feature::xsave)) {
      model_.xcr0Supported = 3;
      entry(0xd, 0, true);
      return;
    }
    CpuidEntry& zero = entry(0xd, 0, true);
    zero.eax = static_cast<std::uint32_t>(model_.xcr0Supported);
    zero.ebx = zero.ecx = 576;
    if (model_.has(Feature::avx)) {
      CpuidResult ymm = hostCpuid(0xd, 2);
      CpuidEntry& two = entry(0xd, 2, true);
      two.eax = ymm.eax;
      two.ebx = ymm.ebx;
      zero.ecx = ymm.eax + ymm.ebx;
    }
    entry(0xd, 1, true);
  }

  void paravirtual() {
    CpuidEntry& base = entry(0x40000000);
    base.eax = 0x40000010;
    std::memcpy(&base.ebx, "KVMK", 4);
    std::memcpy(&base.ecx, "VMKV", 4);
    std::memcpy(&base.edx, "M\0\0\0", 4);
    // Linux Documentation/virt/kvm/x86/cpuid.rst.
    constexpr std::uint32_t kNopIoDelay = 1 << 1, kClocksource2 = 1 << 3, kPvEoi = 1 << 6, kPvUnhalt = 1 << 7,
                            kPvSendIpi = 1 << 11, kPvSchedYield = 1 << 13, kClocksourceStable = 1 << 24;
    entry(0x40000001).eax =
        kNopIoDelay | kClocksource2 | kPvEoi | kPvUnhalt | kPvSendIpi | kPvSchedYield | kClocksourceStable;
    CpuidEntry& rates = entry(0x40000010);
    rates.eax = static_cast<std::uint32_t>(model_.tscHz / 1000);
    rates.ebx = 1'000'000;  // the local APIC's timer counts nanoseconds
  }

  void extended() {
    CpuidEntry& top = entry(0x80000000);
    top.eax = amd() ? 0x80000021 : 0x80000008;
    if (amd()) vendorString(top);
    CpuidEntry& one = entry(0x80000001);
    if (amd()) {
      one.eax = entry(1).eax;
      // AMD repeats these bits of leaf 1, and MMXEXT and FXSR_OPT stand for what SSE brought.
      one.edx |= (entry(1).edx & 0x0183f3ff) | 1u << 22;
      one.ecx |= 1u << 22;  // topology extensions: leaves 0x8000001d and 0x8000001e
      if (model_.cpus > 1) one.ecx |= 1u << 1;
    }
    std::string brand = fmt::format("Lodge {} virtual CPU", model_.name);
    brand.resize(48, '\0');
    for (std::uint32_t i = 0; i < 3; ++i) {
      CpuidEntry& e = entry(0x80000002 + i);
      std::memcpy(&e.eax, brand.data() + 16 * i, 16);
    }
    if (amd()) {
      entry(0x80000005) = {
          0x80000005, 0, 0xff40ff40, 0xff40ff40, 32u << 24 | 8 << 16 | 1 << 8 | 64, 32u << 24 | 8 << 16 | 1 << 8 | 64,
          false};
      entry(0x80000006) = {
          0x80000006, 0, 0, 0x42004200, 1024u << 16 | 8 << 12 | 1 << 8 | 64, 32u << 18 | 9 << 12 | 1 << 8 | 64, false};
    } else {
      entry(0x80000006).ecx = 1024u << 16 | 8 << 12 | 64;
    }
    CpuidEntry& sizes = entry(0x80000008);
    sizes.eax = model_.physicalAddressBits | model_.linearAddressBits << 8;
    if (amd()) {
      sizes.ecx = (model_.cpus - 1) | static_cast<std::uint32_t>(std::bit_width(model_.cpus - 1)) << 12;
      entry(0x8000001e);
      // LFENCE always serializes: Linux then needs no MSR to make it so.
      entry(0x80000021).eax = 1u << 2;
    }
  }

  CpuModel& model_;
  Level level_;
};

}  // namespace

std::vector<std::string> cpuModelNames() {
  return {"x86-64-v2", "x86-64-v3", "host"};
}

Result<std::unique_ptr<CpuModel>> makeCpuModel(std::string_view name, unsigned cpus) {
  Level level = name == "x86-64-v2" ? Level::v2 : name == "x86-64-v3" ? Level::v3 : Level::host;
  if (level == Level::host && name != "host") {
    return Error(ErrorKind::notFound, fmt::format("no CPU model '{}'", name))
        .withHint("--cpu takes " + fmt::format("{}", fmt::join(cpuModelNames(), ", ")));
  }
  auto model = std::make_unique<CpuModel>();
  model->name = name;
  model->vendor = hostVendor();
  model->cpus = cpus;
  model->physicalAddressBits = kPhysicalBits + 2;  // room for a 64-bit PCI window above 1 TiB of RAM
  model->linearAddressBits = kLinearBits;
  model->tscHz = hostTscHz();
  model->tscBase = hostTsc();
  if (Status built = Builder(*model, level).build(); !built) return std::move(built).error();
  return model;
}

}  // namespace lodge::x86
