// SPDX-License-Identifier: Apache-2.0
#include "x86/model/feature_bits.h"

namespace lodge::x86 {

namespace {

using enum CpuidRegister;
using enum Carrier;
using enum Tier;

// SDM vol. 2, CPUID; AMD APM vol. 3, appendix E. Levels: System V psABI x86-64, section 3.1.1.
// Left out on purpose: MONITOR (HLT is what Lodge sleeps in), VMX and SVM, PKU (XSAVE of PKRU would read the host's),
// AVX-512 FP16, LA57 (the walker knows it, but it makes walks longer), XSAVES and XGETBV(1),
// transactional memory, MPX, CET, performance counters, LWP and the other discontinued extensions.
constexpr FeatureBit kBits[] = {
    {"fpu", 1, 0, edx, 0, host, v2, Feature::base},
    {"vme", 1, 0, edx, 1, lodge, v2},
    {"de", 1, 0, edx, 2, lodge, v2},
    {"pse", 1, 0, edx, 3, lodge, v2},
    {"tsc", 1, 0, edx, 4, lodge, v2},
    {"msr", 1, 0, edx, 5, lodge, v2},
    {"pae", 1, 0, edx, 6, lodge, v2},
    {"mce", 1, 0, edx, 7, lodge, v2},
    {"cx8", 1, 0, edx, 8, host, v2, Feature::cx8},
    {"apic", 1, 0, edx, 9, lodge, v2},
    {"sep", 1, 0, edx, 11, lodge, v2},
    {"mtrr", 1, 0, edx, 12, lodge, v2},
    {"pge", 1, 0, edx, 13, lodge, v2},
    {"mca", 1, 0, edx, 14, lodge, v2},
    {"cmov", 1, 0, edx, 15, host, v2, Feature::cmov},
    {"pat", 1, 0, edx, 16, lodge, v2},
    {"pse36", 1, 0, edx, 17, lodge, v2},
    {"clflush", 1, 0, edx, 19, host, v2, Feature::clflush},
    {"mmx", 1, 0, edx, 23, host, v2, Feature::mmx},
    {"fxsr", 1, 0, edx, 24, host, v2, Feature::fxsr},
    {"sse", 1, 0, edx, 25, host, v2, Feature::sse},
    {"sse2", 1, 0, edx, 26, host, v2, Feature::sse2},

    {"sse3", 1, 0, ecx, 0, host, v2, Feature::sse3},
    {"pclmulqdq", 1, 0, ecx, 1, host, v2Optional, Feature::pclmul},
    {"ssse3", 1, 0, ecx, 9, host, v2, Feature::ssse3},
    {"fma", 1, 0, ecx, 12, host, v3, Feature::fma},
    {"cx16", 1, 0, ecx, 13, host, v2, Feature::cx16},
    {"pcid", 1, 0, ecx, 17, lodge, v2},
    {"sse4.1", 1, 0, ecx, 19, host, v2, Feature::sse41},
    {"sse4.2", 1, 0, ecx, 20, host, v2, Feature::sse42},
    {"x2apic", 1, 0, ecx, 21, lodge, v2},
    {"movbe", 1, 0, ecx, 22, host, v3, Feature::movbe},
    {"popcnt", 1, 0, ecx, 23, host, v2, Feature::popcnt},
    {"tsc-deadline", 1, 0, ecx, 24, lodge, v2},
    {"aes", 1, 0, ecx, 25, host, v2Optional, Feature::aes},
    {"xsave", 1, 0, ecx, 26, host, v3, Feature::xsave},
    {"avx", 1, 0, ecx, 28, host, v3, Feature::avx},
    {"f16c", 1, 0, ecx, 29, host, v3, Feature::f16c},
    {"rdrand", 1, 0, ecx, 30, host, v3Optional, Feature::rdrand},
    {"hypervisor", 1, 0, ecx, 31, lodge, v2},

    {"arat", 6, 0, eax, 2, lodge, v2},

    {"fsgsbase", 7, 0, ebx, 0, lodge, v2, Feature::fsgsbase},
    {"tsc-adjust", 7, 0, ebx, 1, lodge, v2},
    {"bmi1", 7, 0, ebx, 3, host, v3, Feature::bmi1},
    {"avx2", 7, 0, ebx, 5, host, v3, Feature::avx2},
    {"fdp-excptn-only", 7, 0, ebx, 6, host, v2Optional},
    {"smep", 7, 0, ebx, 7, lodge, v2},
    {"bmi2", 7, 0, ebx, 8, host, v3, Feature::bmi2},
    {"erms", 7, 0, ebx, 9, lodge, v2},
    {"invpcid", 7, 0, ebx, 10, lodge, v2, Feature::invpcid},
    {"no-fpu-cs-ds", 7, 0, ebx, 13, host, v2Optional},
    {"avx512f", 7, 0, ebx, 16, host, v4, Feature::avx512},
    {"avx512dq", 7, 0, ebx, 17, host, v4},
    {"rdseed", 7, 0, ebx, 18, host, v3Optional, Feature::rdseed},
    {"adx", 7, 0, ebx, 19, host, v3Optional, Feature::adx},
    {"smap", 7, 0, ebx, 20, lodge, v2, Feature::smap},
    {"avx512ifma", 7, 0, ebx, 21, host, v4Optional, Feature::avx512ifma},
    {"clflushopt", 7, 0, ebx, 23, host, v3Optional, Feature::clflushopt},
    {"clwb", 7, 0, ebx, 24, host, hostOnly, Feature::clwb},
    {"avx512cd", 7, 0, ebx, 28, host, v4},
    {"sha", 7, 0, ebx, 29, host, v3Optional, Feature::sha},
    {"avx512bw", 7, 0, ebx, 30, host, v4},
    {"avx512vl", 7, 0, ebx, 31, host, v4},
    {"avx512vbmi", 7, 0, ecx, 1, host, v4Optional, Feature::avx512vbmi},
    {"umip", 7, 0, ecx, 2, lodge, v2},
    {"avx512vbmi2", 7, 0, ecx, 6, host, v4Optional, Feature::avx512vbmi2},
    {"gfni", 7, 0, ecx, 8, host, hostOnly, Feature::gfni},
    {"vaes", 7, 0, ecx, 9, host, hostOnly, Feature::vaes},
    {"vpclmulqdq", 7, 0, ecx, 10, host, hostOnly, Feature::vpclmul},
    {"avx512vnni", 7, 0, ecx, 11, host, v4Optional, Feature::avx512vnni},
    {"avx512bitalg", 7, 0, ecx, 12, host, v4Optional, Feature::avx512bitalg},
    {"avx512vpopcntdq", 7, 0, ecx, 14, host, v4Optional, Feature::avx512vpopcnt},
    {"rdpid", 7, 0, ecx, 22, lodge, v2, Feature::rdpid},
    {"fsrm", 7, 0, edx, 4, lodge, v2},
    {"avx512vp2intersect", 7, 0, edx, 8, host, v4Optional, Feature::avx512vp2intersect},
    {"spec-ctrl", 7, 0, edx, 26, lodge, v2, Feature::kCount, OnlyFor::intel},
    {"arch-capabilities", 7, 0, edx, 29, lodge, v2, Feature::kCount, OnlyFor::intel},
    {"avx-vnni", 7, 1, eax, 4, host, hostOnly, Feature::avxvnni},
    {"avx512bf16", 7, 1, eax, 5, host, v4Optional, Feature::avx512bf16},

    {"xsaveopt", 0xd, 1, eax, 0, host, v3Optional, Feature::xsaveopt},
    {"xsavec", 0xd, 1, eax, 1, host, v3Optional, Feature::xsavec},

    {"lahf-lm", 0x8000'0001, 0, ecx, 0, host, v2},
    {"lzcnt", 0x8000'0001, 0, ecx, 5, host, v3, Feature::lzcnt},
    {"sse4a", 0x8000'0001, 0, ecx, 6, host, hostOnly, Feature::sse4a, OnlyFor::amd},
    {"misalignsse", 0x8000'0001, 0, ecx, 7, host, hostOnly, Feature::kCount, OnlyFor::amd},
    {"3dnowprefetch", 0x8000'0001, 0, ecx, 8, host, v2Optional, Feature::prefetchw},
    {"topoext", 0x8000'0001, 0, ecx, 22, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"syscall", 0x8000'0001, 0, edx, 11, lodge, v2, Feature::syscall},
    {"nx", 0x8000'0001, 0, edx, 20, lodge, v2},
    {"mmxext", 0x8000'0001, 0, edx, 22, host, v2Optional, Feature::kCount, OnlyFor::amd},
    {"pdpe1gb", 0x8000'0001, 0, edx, 26, lodge, v2},
    {"rdtscp", 0x8000'0001, 0, edx, 27, lodge, v2, Feature::rdtscp},
    {"lm", 0x8000'0001, 0, edx, 29, lodge, v2},

    {"invariant-tsc", 0x8000'0007, 0, edx, 8, lodge, v2},
    // Zen's FXSAVE always stores the error pointers; without the bit Linux clears them by hand at each restore.
    {"xsaveerptr", 0x8000'0008, 0, ebx, 2, host, v2Optional, Feature::kCount, OnlyFor::amd},

    {"no-nested-data-bp", 0x8000'0021, 0, eax, 0, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"lfence-serializing", 0x8000'0021, 0, eax, 2, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"null-sel-clears-base", 0x8000'0021, 0, eax, 6, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"auto-ibrs", 0x8000'0021, 0, eax, 8, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"srso-no", 0x8000'0021, 0, eax, 29, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"tsa-sq-no", 0x8000'0021, 0, ecx, 1, lodge, v2, Feature::kCount, OnlyFor::amd},
    {"tsa-l1-no", 0x8000'0021, 0, ecx, 2, lodge, v2, Feature::kCount, OnlyFor::amd},
};

}  // namespace

std::span<const FeatureBit> featureBits() {
  return kBits;
}

}  // namespace lodge::x86
