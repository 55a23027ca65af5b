// SPDX-License-Identifier: Apache-2.0
#include "machine/saved_machine.h"

#include <fmt/format.h>

#include <array>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "engine/engine.h"
#include "machine/machine.h"
#include "x86/model/feature_bits.h"
#include "x86/model/withhold.h"

namespace lodge {

using state::Archive;
using state::Snapshot;

namespace {

/// Fields in and out of `config` and `disks`.
void describe(Snapshot& snapshot, MachineConfig& config, SavedDisks& disks) {
  snapshot.section("configuration", 3, [&](Archive& a) { transfer(a, config); });
  snapshot.section("disks", 4, [&](Archive& a) { transfer(a, disks); });
}

class FileMemory : public MemorySource {
 public:
  explicit FileMemory(std::shared_ptr<const state::StateFile> file) : file_(std::move(file)) {}
  std::size_t pieceBytes() const override { return state::kChunkBytes; }
  bool isZero(std::size_t piece) const override { return file_->isZero(piece); }
  Status load(std::size_t piece, std::span<std::byte> to) const override { return file_->loadChunk(piece, to); }

 private:
  std::shared_ptr<const state::StateFile> file_;
};

bool hasBit(const x86::CpuModel& model, const x86::FeatureBit& bit) {
  for (const x86::CpuidEntry& e : model.leaves) {
    if (e.leaf != bit.leaf || (e.perSubleaf && e.subleaf != bit.subleaf)) continue;
    const std::uint32_t registers[] = {e.eax, e.ebx, e.ecx, e.edx};
    return (registers[static_cast<unsigned>(bit.reg)] >> bit.bit & 1) != 0;
  }
  return false;
}

/// The names of the features that `has` offers and `other` does not, as CPUID's manuals and Linux have them; "" if
/// there are none.
std::string missingFeatures(const x86::CpuModel& has, const x86::CpuModel& other) {
  std::string names;
  auto add = [&](const char* name) { names += (names.empty() ? "" : ", ") + std::string(name); };
  for (const x86::FeatureBit& bit : x86::featureBits()) {
    if (hasBit(has, bit) && !hasBit(other, bit)) add(bit.name);
  }
  // Linux Documentation/virt/kvm/x86/cpuid.rst.
  constexpr std::pair<std::uint8_t, const char*> kParavirtual[] = {
      {0, "kvm-clock (old)"}, {1, "kvm-nopiodelay"}, {3, "kvm-clock"},         {6, "kvm-pv-eoi"},
      {7, "kvm-pv-unhalt"},   {11, "kvm-pv-ipi"},    {12, "kvm-poll-control"}, {24, "kvm-clock-stable"}};
  for (const auto& [number, name] : kParavirtual) {
    x86::FeatureBit bit{name, 0x4000'0001, 0, x86::CpuidRegister::eax, number, x86::Carrier::lodge, x86::Tier::v2};
    if (hasBit(has, bit) && !hasBit(other, bit)) add(name);
  }
  return names.empty() ? "" : "CPU feature" + std::string(names.find(',') == std::string::npos ? " " : "s ") + names;
}

/// A host's own may be slower than what can be asked for.
bool isTscRate(std::uint64_t hz) {
  constexpr std::uint64_t kLeast = 1'000'000;
  return hz >= kLeast && hz <= x86::kMostTscHz;
}

unsigned addressBitsOf(const std::vector<x86::CpuidEntry>& leaves, unsigned otherwise) {
  constexpr std::uint32_t kAddressSizes = 0x8000'0008;
  for (const x86::CpuidEntry& e : leaves) {
    if (e.leaf == kAddressSizes) return e.eax & 0xff;
  }
  return otherwise;
}

}  // namespace

Result<std::unique_ptr<SavedMachine>> SavedMachine::open(const std::string& path) {
  auto saved = std::make_unique<SavedMachine>();
  auto file = state::StateFile::open(path);
  if (!file) return std::move(file).error();
  saved->file = std::move(*file);
  auto snapshot = Snapshot::parse(saved->file->sections());
  if (!snapshot) return std::move(snapshot).error().context("state file " + inQuotes(path));
  saved->snapshot = std::move(*snapshot);
  describe(saved->snapshot, saved->config, saved->disks);
  if (Status s = saved->snapshot.status(); !s) return std::move(s).error().context("state file " + inQuotes(path));
  return saved;
}

Result<MachineConfig> savedConfig(const std::string& path) {
  auto saved = SavedMachine::open(path);
  if (!saved) return std::move(saved).error();
  MachineConfig config = std::move((*saved)->config);
  config.restoreFrom = path;
  return config;
}

void transferDescription(Snapshot& snapshot, MachineConfig config, SavedDisks disks) {
  describe(snapshot, config, disks);
}

void transferModel(Snapshot& snapshot, x86::CpuModel& model) {
  constexpr std::uint32_t kXsaveLeaf = 0xd;
  constexpr std::size_t kMostLeaves = 1024;
  snapshot.section("cpu-model", 1, [&](Archive& a) {
    std::uint64_t features = model.features, components = model.xcr0Supported;
    x86::CpuVendor vendor = model.vendor;
    a(features, components, vendor);
    a.require(vendor == model.vendor, "the CPU's vendor: this host has the other one");
    std::vector<x86::CpuidEntry> leaves(a.count(model.leaves.size(), kMostLeaves, "the number of CPUID leaves"));
    if (!a.loading()) leaves = model.leaves;
    auto place = [](const x86::CpuidEntry& e) { return std::pair(e.leaf, e.subleaf); };
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      x86::CpuidEntry& e = leaves[i];
      a(e.leaf, e.subleaf, e.eax, e.ebx, e.ecx, e.edx, e.perSubleaf);
      a.require(i == 0 || place(leaves[i - 1]) < place(e), "the order of CPUID leaves");
    }
    // A host and an engine that have more give what the machine had.
    x86::CpuModel saved = model, reduced = model;
    saved.leaves = leaves;
    std::string missing = missingFeatures(saved, model);
    a.require(missing.empty(), missing + ", which this host, or the engine, cannot give");
    x86::withholdFeatures(reduced, [&](const x86::FeatureBit& bit) { return hasBit(saved, bit); });
    a.require(features == reduced.features, "the CPU's features: this version gives other ones");
    a.require(components == reduced.xcr0Supported, "the parts of the CPU's vector state: this host has other ones");
    unsigned addressBits = addressBitsOf(leaves, model.physicalAddressBits);
    a.require(addressBits <= model.physicalAddressBits,
              fmt::format("physical addresses of {} bits: this host has {}", addressBits, model.physicalAddressBits));
    auto xsave = [](const std::vector<x86::CpuidEntry>& all) {
      std::vector<std::array<std::uint32_t, 4>> areas;
      for (const x86::CpuidEntry& e : all) {
        if (e.leaf == kXsaveLeaf) areas.push_back({e.subleaf, e.eax, e.ebx, e.ecx});
      }
      return areas;
    };
    a.require(xsave(leaves) == xsave(reduced.leaves), "the places of the CPU's vector state: this host has other ones");
    if (!a.mayApply()) return;
    model = std::move(reduced);
    model.leaves = std::move(leaves);
    model.physicalAddressBits = addressBits;
  });
}

Status engineKeepsModel(const std::string& engine, const x86::CpuModel& model, Irqchip irqchip) {
  x86::CpuModel limited = model;
  if (Status s = keepsTscRate(engine, model); !s) return s;
  if (Status s = limitModel(engine, limited, irqchip); !s) return s;
  std::string what = missingFeatures(model, limited);
  for (std::size_t i = 0; what.empty() && i < model.leaves.size() && i < limited.leaves.size(); ++i) {
    const x86::CpuidEntry &had = model.leaves[i], &left = limited.leaves[i];
    if (std::tie(had.leaf, had.eax, had.ebx, had.ecx, had.edx) !=
        std::tie(left.leaf, left.eax, left.ebx, left.ecx, left.edx))
      what = fmt::format("what CPUID leaf {:#x} offers", had.leaf);
  }
  if (what.empty()) return {};
  return Error(ErrorKind::unsupported,
               fmt::format("engine {} cannot give the machine all that it was started with: {}", engine, what))
      .withHint("a machine that was started on that engine can move to the others and back");
}

namespace {

/// The least count of the host's that is `guest` ticks of the guest's or more.
std::uint64_t hostTicks(const x86::TscScale& scale, std::uint64_t guest) {
  using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(((Wide{guest} << x86::TscScale::kFractionBits) + scale.ratio() - 1) /
                                    scale.ratio());
}

}  // namespace

void transferClocks(Snapshot& snapshot, x86::CpuModel& model, std::uint64_t hostTsc, Nanoseconds& now,
                    Nanoseconds& utc) {
  snapshot.section("clocks", 2, [&](Archive& a) {
    std::uint64_t sinceZero = model.tscScale()(hostTsc - model.tscBase), hz = model.tscHz;
    a(now, sinceZero, hz);
    a.require(now >= 0 && now < Nanoseconds{1} << 60, "the machine's time");
    if (a.version() >= 2)
      a(utc);
    else
      utc = 0;
    a.require(utc >= 0, "the time of day at which the machine was saved");
    a.require(isTscRate(hz), fmt::format("the rate of the CPU's time stamp counter, {} Hz", hz));
    if (!a.mayApply()) return;
    model.tscHz = hz;
    model.tscBase = hostTsc - hostTicks(model.tscScale(), sinceZero);
  });
}

std::unique_ptr<MemorySource> makeMemorySource(std::shared_ptr<const state::StateFile> file) {
  return std::make_unique<FileMemory>(std::move(file));
}

}  // namespace lodge
