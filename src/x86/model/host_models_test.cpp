// SPDX-License-Identifier: Apache-2.0
// Models for hosts that this test makes up.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "x86/model/feature_bits.h"
#include "x86/model/host_cpu.h"
#include "x86/state.h"
#include "x86/system.h"

namespace lodge::x86 {
namespace {

class MadeUpHost : public HostCpu {
 public:
  /// With every feature bit of the table but those named.
  MadeUpHost(const char* vendor, std::initializer_list<std::string_view> without = {}) {
    auto& id = leaves_[{0, 0}];
    std::memcpy(&id.reg[1], vendor, 4);
    std::memcpy(&id.reg[3], vendor + 4, 4);
    std::memcpy(&id.reg[2], vendor + 8, 4);
    for (const FeatureBit& bit : featureBits()) {
      bool missing = std::find(without.begin(), without.end(), bit.name) != without.end();
      if (!missing) leaves_[{bit.leaf, bit.subleaf}].reg[static_cast<unsigned>(bit.reg)] |= 1u << bit.bit;
    }
    leaves_[{0xd, 2}] = {{256, 576, 0, 0}};
    leaves_[{0xd, 5}] = {{64, 1088, 0, 0}};
    leaves_[{0xd, 6}] = {{512, 1152, 0, 0}};
    leaves_[{0xd, 7}] = {{1024, 1664, 0, 0}};
  }
  CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf) const override {
    auto at = leaves_.find({leaf, subleaf});
    return at == leaves_.end() ? CpuidResult{} : at->second;
  }
  std::uint64_t xcr0() const override { return xcr0Value; }
  std::uint64_t tscHz() const override { return 2'500'000'000; }
  std::uint64_t tsc() const override { return 12345; }

  std::uint64_t xcr0Value = 7;

 private:
  std::map<std::pair<std::uint32_t, std::uint32_t>, CpuidResult> leaves_;
};

struct Asked {
  std::uint32_t eax, ebx, ecx, edx;
};
Asked ask(const CpuModel& model, std::uint32_t leaf, std::uint32_t subleaf = 0, unsigned index = 0) {
  auto cpu = std::make_unique<Cpu>();
  cpu->model = &model;
  cpu->index = index;
  cpu->state.xcr0 = 7;
  std::uint32_t out[4];
  cpuid(*cpu, leaf, subleaf, out);
  return {out[0], out[1], out[2], out[3]};
}

std::unique_ptr<CpuModel> make(const HostCpu& host, std::string_view name, unsigned cpus = 1) {
  auto model = makeCpuModelFor(host, name, cpus);
  EXPECT_TRUE(model) << model.error().message();
  return model ? std::move(*model) : std::make_unique<CpuModel>();
}

TEST(HostModels, aHostWithoutTheLevelIsNamedWithWhatItLacks) {
  MadeUpHost host("GenuineIntel", {"avx2"});
  auto model = makeCpuModelFor(host, "x86-64-v3", 1);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().kind(), ErrorKind::unsupported);
  EXPECT_NE(model.error().message().find("avx2"), std::string::npos);
  EXPECT_EQ(model.error().hint(), "use --cpu x86-64-v2 or --cpu host");
  EXPECT_TRUE(make(host, "x86-64-v2")->has(Feature::sse42));
  EXPECT_FALSE(make(host, "host")->has(Feature::avx2));
}

TEST(HostModels, avx512) {
  MadeUpHost host("GenuineIntel");
  host.xcr0Value = 0xe7;
  for (const char* name : {"x86-64-v4", "host"}) {
    auto model = make(host, name);
    EXPECT_TRUE(model->has(Feature::avx512)) << name;
    EXPECT_TRUE(model->has(Feature::avx512vnni)) << name;
    EXPECT_EQ(model->xcr0Supported, 0xe7u);
    EXPECT_EQ(ask(*model, 0xd).ecx, 1664u + 1024);
    EXPECT_EQ(ask(*model, 0xd, 6).ebx, 1152u);
  }
  auto v3 = make(host, "x86-64-v3");
  EXPECT_FALSE(v3->has(Feature::avx512));
  EXPECT_EQ(v3->xcr0Supported, 7u);
}

TEST(HostModels, avx512IsOfferedAsAWhole) {
  MadeUpHost host("AuthenticAMD", {"avx512vl"});
  host.xcr0Value = 0xe7;
  auto all = make(host, "host");
  for (Feature f : {Feature::avx512, Feature::avx512ifma, Feature::avx512vbmi}) EXPECT_FALSE(all->has(f));
  EXPECT_EQ(ask(*all, 7).ebx & 0xdc23'0000, 0u);
  auto model = makeCpuModelFor(host, "x86-64-v4", 1);
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message().find("avx512"), std::string::npos);
  EXPECT_EQ(model.error().hint(), "use --cpu x86-64-v3 or --cpu host");
}

TEST(HostModels, avxNeedsTheHostsSystem) {
  MadeUpHost host("GenuineIntel");
  host.xcr0Value = 3;
  auto model = make(host, "host");
  for (Feature f : {Feature::avx, Feature::avx2, Feature::fma, Feature::f16c, Feature::vaes}) {
    EXPECT_FALSE(model->has(f)) << static_cast<int>(f);
  }
  EXPECT_EQ(model->xcr0Supported, 3u);
  EXPECT_EQ(ask(*model, 1).ecx & (1u << 28 | 1u << 12 | 1u << 29), 0u);
}

TEST(HostModels, zeroCpusAreRefused) {
  MadeUpHost host("AuthenticAMD");
  for (unsigned cpus : {0u, 256u}) {
    auto model = makeCpuModelFor(host, "host", cpus);
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().kind(), ErrorKind::invalidArgument);
  }
}

TEST(HostModels, vendors) {
  auto amd = make(MadeUpHost("AuthenticAMD"), "x86-64-v3", 4);
  EXPECT_EQ(amd->vendor, CpuVendor::amd);
  EXPECT_EQ(ask(*amd, 0).ebx, 0x6874'7541u);
  EXPECT_EQ(ask(*amd, 0x8000'0000).ebx, 0x6874'7541u);
  EXPECT_EQ(ask(*amd, 0x8000'0000).eax, 0x8000'0021u);
  EXPECT_NE(ask(*amd, 0x8000'0021).eax & 1 << 8, 0u) << "automatic IBRS";
  EXPECT_EQ(ask(*amd, 7).edx & 1 << 29, 0u);
  EXPECT_EQ(amd->eferSupported & 1 << 21, 1u << 21);
  EXPECT_EQ(ask(*amd, 0x8000'0001).edx & 0x0183'f3ff, ask(*amd, 1).edx & 0x0183'f3ff);
  EXPECT_EQ(ask(*amd, 0x8000'0008).ecx & 0xff, 3u);
  EXPECT_EQ(ask(*amd, 0x8000'001e, 0, 3).eax, 3u);
  EXPECT_EQ(ask(*amd, 0x4000).eax, 0u) << "AMD's unknown leaves are zeros";

  auto intel = make(MadeUpHost("GenuineIntel"), "x86-64-v3", 4);
  EXPECT_EQ(intel->vendor, CpuVendor::intel);
  EXPECT_EQ(ask(*intel, 0x8000'0000).eax, 0x8000'0008u);
  EXPECT_NE(ask(*intel, 7).edx & 1 << 29, 0u);
  EXPECT_NE(intel->archCapabilities & 1, 0u);
  EXPECT_EQ(ask(*intel, 0x1f, 1, 2).edx, 2u);
  Asked last = ask(*intel, ask(*intel, 0).eax), beyond = ask(*intel, 0x4000);
  EXPECT_EQ(last.eax, beyond.eax) << "Intel's are those of the last basic leaf";
  EXPECT_EQ(ask(*intel, 0x8000'0001).edx & 1 << 11, 0u) << "SYSCALL is shown in 64-bit mode only";
  Asked ratio = ask(*intel, 0x15);
  EXPECT_EQ(std::uint64_t{ratio.ecx} * ratio.ebx / ratio.eax, 2'500'000'000u);
}

TEST(HostModels, everyCpuSeesOneTopology) {
  for (const char* vendor : {"AuthenticAMD", "GenuineIntel"}) {
    for (unsigned cpus : {1u, 2u, 3u, 8u, 16u}) {
      auto model = make(MadeUpHost(vendor), "x86-64-v2", cpus);
      Asked core = ask(*model, 0xb, 1, cpus - 1);
      EXPECT_EQ(core.ebx, cpus);
      EXPECT_GE(1u << core.eax, cpus);
      EXPECT_EQ(core.ecx >> 8, 2u);
      EXPECT_EQ(core.edx, cpus - 1);
      EXPECT_EQ(ask(*model, 0xb, 0).ebx, 1u);
      EXPECT_EQ(ask(*model, 0xb, 2).ebx, 0u);
      EXPECT_EQ(ask(*model, 0xb, 2, cpus - 1).edx, cpus - 1);
      EXPECT_EQ(ask(*model, 1).edx >> 28 & 1, cpus > 1 ? 1u : 0u);
      std::uint32_t cacheLeaf = std::string_view(vendor) == "AuthenticAMD" ? 0x8000'001d : 4;
      std::vector<unsigned> levels;
      for (unsigned i = 0; (ask(*model, cacheLeaf, i).eax & 31) != 0; ++i) {
        levels.push_back(ask(*model, cacheLeaf, i).eax >> 5 & 7);
      }
      EXPECT_EQ(levels, (std::vector<unsigned>{1, 1, 2, 3}));
      EXPECT_GE((ask(*model, cacheLeaf, 3).eax >> 14 & 0xfff) + 1, cpus);
    }
  }
}

TEST(HostModels, kvmLeaves) {
  auto model = make(MadeUpHost("AuthenticAMD"), "host");
  Asked base = ask(*model, 0x4000'0000);
  char signature[13] = {};
  std::memcpy(signature, &base.ebx, 4);
  std::memcpy(signature + 4, &base.ecx, 4);
  std::memcpy(signature + 8, &base.edx, 4);
  EXPECT_STREQ(signature, "KVMKVMKVM");
  EXPECT_EQ(base.eax, 0x4000'0010u);
  EXPECT_EQ(ask(*model, 0x4000'0001).eax,
            1u << 24 | 1 << 12 | 1 << 11 | 1 << 7 | 1 << 6 | 1 << 5 | 1 << 3 | 1 << 1 | 1);
  EXPECT_EQ(ask(*model, 0x4000'0010).eax, 2'500'000u);
  EXPECT_EQ(ask(*model, 0x4000'0010).ebx, 1'000'000u);
  EXPECT_NE(ask(*model, 0x8000'0007).edx & 1 << 8, 0u) << "invariant TSC";
}

TEST(HostModels, registersAllowWhatIsOffered) {
  auto v2 = make(MadeUpHost("AuthenticAMD"), "x86-64-v2");
  EXPECT_EQ(v2->cr4Supported & cr4::osxsave, 0u);
  EXPECT_NE(v2->cr4Supported & cr4::smap, 0u);
  EXPECT_EQ(v2->cr4Supported & (cr4::pke | cr4::la57), 0u);
  auto v3 = make(MadeUpHost("AuthenticAMD"), "x86-64-v3");
  EXPECT_NE(v3->cr4Supported & cr4::osxsave, 0u);
  EXPECT_EQ(v3->tscBase, 12345u);
  EXPECT_EQ(make(MadeUpHost("AuthenticAMD"), "host")->tscBase, 0u);
  EXPECT_EQ(ask(*v3, 0x8000'0008).eax, v3->physicalAddressBits | 48u << 8);
}

TEST(HostModels, nothingBeyondTheTableIsOffered) {
  for (const char* vendor : {"AuthenticAMD", "GenuineIntel"}) {
    auto model = make(MadeUpHost(vendor), "host");
    EXPECT_EQ(ask(*model, 7).ebx & 0xdc23'0000, 0u) << "AVX-512";
    EXPECT_EQ(ask(*model, 7).ecx & (1 << 3 | 1 << 16), 0u) << "PKU, LA57";
    EXPECT_EQ(ask(*model, 1).ecx & (1 << 3 | 1 << 5), 0u) << "MONITOR, VMX";
    EXPECT_EQ(ask(*model, 0x8000'0001).ecx & (1 << 2), 0u) << "SVM";
    EXPECT_EQ(ask(*model, 0xd, 1).eax & ~3u, 0u);
  }
}

}  // namespace
}  // namespace lodge::x86
