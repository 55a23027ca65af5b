// SPDX-License-Identifier: Apache-2.0
#include "x86/cpu_model.h"

#include <algorithm>
#include <cstring>

#include "base/trace.h"
#include "x86/model/feature_bits.h"
#include "x86/model/host_cpu.h"
#include "x86/model/leaf_table.h"
#include "x86/state.h"

namespace lodge::x86 {

namespace {

enum class Level : std::uint8_t { v2, v3, v4, host };

struct ModelName {
  const char* name;
  Level level;
};
constexpr ModelName kNames[] = {
    {"x86-64-v2", Level::v2}, {"x86-64-v3", Level::v3}, {"x86-64-v4", Level::v4}, {"host", Level::host}};

constexpr std::uint64_t kXcr0Legacy = 3, kXcr0Avx = 4, kXcr0Avx512 = 0xe0;
// RAM reaches up to 1 TiB + 4 GiB, and 64-bit PCI windows lie above.
constexpr unsigned kPhysicalBits = 46;

/// Builds one model; the functions are steps of build().
class Builder {
 public:
  Builder(const HostCpu& host, const ModelName& name, unsigned cpus) : host_(host), name_(name), cpus_(cpus) {}

  Result<std::unique_ptr<CpuModel>> build() {
    model_->name = name_.name;
    model_->cpus = cpus_;
    model_->vendor = hostVendor();
    model_->tscHz = model_->hostTscHz = host_.tscHz();
    // The host's own: as it is, so that programs may read it without Lodge.
    model_->tscBase = name_.name == std::string_view("host") ? 0 : host_.tsc();
    model_->physicalAddressBits = kPhysicalBits;
    model_->gigabytePages = true;
    if (Status status = addFeatures(); !status) return std::move(status).error();
    addIdentity();
    addXsave();
    addClock();
    addTopology(table_, model_->vendor, cpus_);
    addCaches(table_, model_->vendor, cpus_);
    addHypervisor(table_, model_->tscHz);
    mirrorAmdFeatures();
    table_.setLimits();
    setRegisterMasks();
    model_->leaves = table_.take();
    return std::move(model_);
  }

 private:
  bool amd() const { return model_->vendor == CpuVendor::amd; }

  CpuVendor hostVendor() const {
    CpuidResult r = host_.cpuid(0, 0);
    char vendor[12];
    std::memcpy(vendor, &r.reg[1], 4);
    std::memcpy(vendor + 4, &r.reg[3], 4);
    std::memcpy(vendor + 8, &r.reg[2], 4);
    std::string_view name(vendor, sizeof vendor);
    return name == "AuthenticAMD" || name == "HygonGenuine" ? CpuVendor::amd : CpuVendor::intel;
  }

  bool hostHas(const FeatureBit& bit) const {
    CpuidResult r = host_.cpuid(bit.leaf, bit.subleaf);
    bool avxState = bit.feature != Feature::avx || (host_.xcr0() & kXcr0Avx) != 0;
    bool evexState = !isAvx512(bit) || hostHasAvx512();
    return ((r[bit.reg] >> bit.bit) & 1) != 0 && avxState && evexState;
  }

  static bool isAvx512(const FeatureBit& bit) { return bit.tier == Tier::v4 || bit.tier == Tier::v4Optional; }

  /// State, and the parts that are offered together.
  bool hostHasAvx512() const {
    constexpr std::uint32_t kF = 1 << 16, kDq = 1 << 17, kCd = 1 << 28, kBw = 1 << 30, kVl = 1u << 31;
    constexpr std::uint32_t kAll = kF | kDq | kCd | kBw | kVl;
    constexpr std::uint64_t kState = kXcr0Avx512 | kXcr0Avx;
    return !isWithheld(HostFeature::avx512) && (host_.xcr0() & kState) == kState &&
           (host_.cpuid(7, 0)[CpuidRegister::ebx] & kAll) == kAll;
  }

  bool inModel(const FeatureBit& bit) const {
    if (bit.vendor == OnlyFor::amd && !amd()) return false;
    if (bit.vendor == OnlyFor::intel && amd()) return false;
    switch (bit.tier) {
      case Tier::v2:
      case Tier::v2Optional:
        return true;
      case Tier::v3:
      case Tier::v3Optional:
        return name_.level >= Level::v3;
      case Tier::v4:
      case Tier::v4Optional:
        return name_.level >= Level::v4;
      case Tier::hostOnly:
        return name_.level == Level::host;
    }
    return false;
  }

  bool required(const FeatureBit& bit) const {
    bool named = name_.level == Level::v3 || name_.level == Level::v4;
    return bit.tier == Tier::v2 || (bit.tier == Tier::v3 && named) ||
           (bit.tier == Tier::v4 && name_.level == Level::v4);
  }

  static const char* hintFor(Tier missing) {
    if (missing == Tier::v2) return "use a newer host";
    return missing == Tier::v3 ? "use --cpu x86-64-v2 or --cpu host" : "use --cpu x86-64-v3 or --cpu host";
  }

  Status addFeatures() {
    for (const FeatureBit& bit : featureBits()) {
      if (!inModel(bit)) continue;
      if (bit.carrier == Carrier::host && !hostHas(bit)) {
        if (!required(bit)) continue;
        return Error(ErrorKind::unsupported, "CPU model '" + std::string(name_.name) + "' needs the feature " +
                                                 bit.name + ", which this host's CPU lacks")
            .withHint(hintFor(bit.tier));
      }
      bool perSubleaf = bit.leaf == 7 || bit.leaf == 0xd;
      table_.setBit(bit.leaf, bit.subleaf, perSubleaf, bit.reg, bit.bit);
      if (bit.feature != Feature::kCount) model_->features |= 1ull << static_cast<unsigned>(bit.feature);
    }
    // Without AVX state its dependants cannot be used.
    if (!model_->has(Feature::avx)) dropAvx();
    return {};
  }

  void dropAvx() {
    for (const FeatureBit& bit : featureBits()) {
      switch (bit.feature) {
        case Feature::avx2:
        case Feature::fma:
        case Feature::f16c:
        case Feature::vaes:
        case Feature::vpclmul:
        case Feature::avxvnni:
        case Feature::avx512: {
          CpuidEntry& e = bit.leaf == 1 ? table_.leaf(1) : table_.subleaf(bit.leaf, bit.subleaf);
          std::uint32_t* regs[] = {&e.eax, &e.ebx, &e.ecx, &e.edx};
          *regs[static_cast<unsigned>(bit.reg)] &= ~(1u << bit.bit);
          model_->features &= ~(1ull << static_cast<unsigned>(bit.feature));
          break;
        }
        default:
          break;
      }
    }
  }

  // Vendor, signature and names. The signatures are of a Genoa and a Sapphire Rapids: processors that operating systems
  // know, and regard as free of the older generations' errata.
  void addIdentity() {
    CpuidResult id = {};
    const char* vendor = amd() ? "AuthenticAMD" : "GenuineIntel";
    std::memcpy(&id.reg[1], vendor, 4);
    std::memcpy(&id.reg[3], vendor + 4, 4);
    std::memcpy(&id.reg[2], vendor + 8, 4);
    table_.leaf(0) = {0, 0, 0, id.reg[1], id.reg[2], id.reg[3], false};
    // AMD repeats the name, Intel does not.
    if (!amd()) id = {};
    table_.leaf(0x8000'0000) = {0x8000'0000, 0, 0, id.reg[1], id.reg[2], id.reg[3], false};

    CpuidEntry& one = table_.leaf(1);
    one.eax = amd() ? 0x00a1'0f11 : 0x0008'06f8;
    one.ebx = 8 << 8;  // CLFLUSH line in 8-byte units
    if (amd()) table_.leaf(0x8000'0001).eax = one.eax;
    CpuidEntry& seven = table_.subleaf(7, 0);
    if (table_.has(7, 1)) seven.eax = 1;
    addBrand();
    table_.leaf(0x8000'0008).eax = kPhysicalBits | model_->linearAddressBits << 8;
    if (amd()) table_.leaf(0x8000'0021);
  }

  void addBrand() {
    std::string brand = "Lodge virtual CPU (" + std::string(name_.name) + ")";
    brand.resize(48, '\0');
    for (unsigned i = 0; i < 3; ++i) {
      std::uint32_t words[4];
      std::memcpy(words, brand.data() + 16 * i, 16);
      std::uint32_t leaf = 0x8000'0002 + i;
      table_.leaf(leaf) = {leaf, 0, words[0], words[1], words[2], words[3], false};
    }
  }

  // SDM vol. 1, 13.2. Offsets and sizes are the host's, for the area is the host's own format.
  void addXsave() {
    model_->xcr0Supported = kXcr0Legacy;
    if (!model_->has(Feature::xsave)) return;
    if (model_->has(Feature::avx)) model_->xcr0Supported |= kXcr0Avx;
    CpuidEntry& one = table_.subleaf(0xd, 1);
    if (one.eax == 0) one.perSubleaf = true;
    std::uint32_t size = 576;
    if ((model_->xcr0Supported & kXcr0Avx) != 0) {
      CpuidResult avx = host_.cpuid(0xd, 2);
      table_.subleaf(0xd, 2) = {0xd, 2, avx.reg[0], avx.reg[1], avx.reg[2] & 2, 0, true};
      size = avx.reg[0] + avx.reg[1];
    }
    if (model_->has(Feature::avx512)) {
      model_->xcr0Supported |= kXcr0Avx512;
      for (std::uint32_t component : {5u, 6u, 7u}) {
        CpuidResult part = host_.cpuid(0xd, component);
        table_.subleaf(0xd, component) = {0xd, component, part.reg[0], part.reg[1], part.reg[2] & 2, 0, true};
        size = std::max(size, part.reg[0] + part.reg[1]);
      }
    }
    table_.subleaf(0xd, 0) = {0xd, 0, static_cast<std::uint32_t>(model_->xcr0Supported), size, size, 0, true};
  }

  // SDM vol. 2, leaves 15H and 16H; the "crystal" is the APIC timer's clock.
  void addClock() {
    if (amd()) return;
    auto khz = static_cast<std::uint32_t>(model_->tscHz / 1000);
    table_.leaf(0x15) = {0x15, 0, kApicBusHz / 1000, khz, kApicBusHz, 0, false};
    table_.leaf(0x16) = {0x16, 0, khz / 1000, khz / 1000, 100, 0, false};
  }

  // AMD's 0x80000001 repeats most of leaf 1's EDX (APM vol. 3, E.4.2).
  void mirrorAmdFeatures() {
    constexpr std::uint32_t kRepeated = 0x0183'f3ff;
    if (amd()) table_.leaf(0x8000'0001).edx |= table_.leaf(1).edx & kRepeated;
  }

  void setRegisterMasks() {
    CpuModel& m = *model_;
    m.cr4Supported = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce | cr4::pge | cr4::pce |
                     cr4::osfxsr | cr4::osxmmexcpt | cr4::umip | cr4::fsgsbase | cr4::pcide | cr4::smep | cr4::smap;
    if (m.has(Feature::xsave)) m.cr4Supported |= cr4::osxsave;
    m.eferSupported = efer::sce | efer::lme | efer::nxe;
    // Automatic and enhanced IBRS: the guest need not spend anything on indirect branches. In a translated guest, whose
    // code all runs at one host privilege, its own mitigations would do nothing (docs/architecture.md).
    constexpr std::uint64_t kAutoIbrs = 1 << 21, kIbrs = 1;
    if (amd()) {
      m.eferSupported |= kAutoIbrs;
      return;
    }
    m.specCtrlSupported = kIbrs;
    // SDM vol. 4, table 2-2: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
    // FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO: none of these leaks crosses from one guest
    // privilege to another by anything that the guest could flush.
    for (unsigned bit : {0, 1, 3, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62}) m.archCapabilities |= 1ull << bit;
  }

  const HostCpu& host_;
  const ModelName& name_;
  unsigned cpus_;
  std::unique_ptr<CpuModel> model_ = std::make_unique<CpuModel>();
  LeafTable table_;
};

}  // namespace

Result<std::unique_ptr<CpuModel>> makeCpuModelFor(const HostCpu& host, std::string_view name, unsigned cpus) {
  if (cpus == 0 || cpus > 255) {
    return Error(ErrorKind::invalidArgument, std::to_string(cpus) + " CPUs").withHint("give a number from 1 to 255");
  }
  std::string known;
  for (const ModelName& candidate : kNames) {
    if (name == candidate.name) return Builder(host, candidate, cpus).build();
    known += std::string(known.empty() ? "" : ", ") + candidate.name;
  }
  return Error(ErrorKind::notFound, "CPU model '" + std::string(name) + "'").withHint("known models: " + known);
}

void setTscHz(CpuModel& model, std::uint64_t hz) {
  auto khz = static_cast<std::uint32_t>(hz / 1000);
  model.tscHz = hz;
  if (!model.tscScale().isIdentity()) model.tscBase = hostCpu().tsc();
  for (CpuidEntry& entry : model.leaves) {
    if (entry.leaf == 0x15) entry.ebx = khz;
    if (entry.leaf == 0x16) entry.eax = entry.ebx = khz / 1000;
    if (entry.leaf == 0x4000'0010) entry.eax = khz;
  }
}

void setPhysicalAddressBits(CpuModel& model, unsigned bits) {
  model.physicalAddressBits = bits;
  for (CpuidEntry& entry : model.leaves) {
    if (entry.leaf == 0x8000'0008) entry.eax = (entry.eax & ~0xffu) | bits;
  }
}

Result<std::unique_ptr<CpuModel>> makeCpuModel(std::string_view name, unsigned cpus) {
  return makeCpuModelFor(hostCpu(), name, cpus);
}

std::vector<std::string> cpuModelNames() {
  std::vector<std::string> names;
  for (const ModelName& name : kNames) names.emplace_back(name.name);
  return names;
}

}  // namespace lodge::x86
