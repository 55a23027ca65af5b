// SPDX-License-Identifier: Apache-2.0
#include "x86/model/feature_bits.h"

namespace lodge::x86 {

namespace {

using F = Feature;
using R = CpuidRegister;
constexpr Level A = Level::always, V2 = Level::v2, V3 = Level::v3, H = Level::host;

// SDM vol. 2, CPUID; AMD APM vol. 3, appendix E.
constexpr FeatureBit kBits[] = {
    {1, 0, R::edx, 0, A, true, F::base, "fpu"},
    {1, 0, R::edx, 1, A, true, F::base, "vme"},
    {1, 0, R::edx, 2, A, true, F::base, "de"},
    {1, 0, R::edx, 3, A, true, F::base, "pse"},
    {1, 0, R::edx, 4, A, true, F::base, "tsc"},
    {1, 0, R::edx, 5, A, true, F::base, "msr"},
    {1, 0, R::edx, 6, A, true, F::base, "pae"},
    {1, 0, R::edx, 7, A, true, F::base, "mce"},
    {1, 0, R::edx, 8, A, true, F::cx8, "cx8"},
    {1, 0, R::edx, 9, A, true, F::base, "apic"},
    {1, 0, R::edx, 11, A, true, F::base, "sep"},
    {1, 0, R::edx, 12, A, true, F::base, "mtrr"},
    {1, 0, R::edx, 13, A, true, F::base, "pge"},
    {1, 0, R::edx, 14, A, true, F::base, "mca"},
    {1, 0, R::edx, 15, A, true, F::cmov, "cmov"},
    {1, 0, R::edx, 16, A, true, F::base, "pat"},
    {1, 0, R::edx, 17, A, true, F::base, "pse36"},
    {1, 0, R::edx, 19, A, true, F::clflush, "clflush"},
    {1, 0, R::edx, 23, A, false, F::mmx, "mmx"},
    {1, 0, R::edx, 24, A, false, F::fxsr, "fxsr"},
    {1, 0, R::edx, 25, A, false, F::sse, "sse"},
    {1, 0, R::edx, 26, A, false, F::sse2, "sse2"},

    {1, 0, R::ecx, 0, V2, false, F::sse3, "pni"},
    {1, 0, R::ecx, 1, V2, false, F::pclmul, "pclmulqdq"},
    {1, 0, R::ecx, 9, V2, false, F::ssse3, "ssse3"},
    {1, 0, R::ecx, 12, V3, false, F::fma, "fma"},
    {1, 0, R::ecx, 13, V2, false, F::cx16, "cx16"},
    {1, 0, R::ecx, 17, A, true, F::base, "pcid"},
    {1, 0, R::ecx, 19, V2, false, F::sse41, "sse4_1"},
    {1, 0, R::ecx, 20, V2, false, F::sse42, "sse4_2"},
    {1, 0, R::ecx, 21, A, true, F::base, "x2apic"},
    {1, 0, R::ecx, 22, V3, false, F::movbe, "movbe"},
    {1, 0, R::ecx, 23, V2, false, F::popcnt, "popcnt"},
    {1, 0, R::ecx, 24, A, true, F::base, "tsc_deadline_timer"},
    {1, 0, R::ecx, 25, V2, false, F::aes, "aes"},
    {1, 0, R::ecx, 26, V3, false, F::xsave, "xsave"},
    {1, 0, R::ecx, 28, V3, false, F::avx, "avx"},
    {1, 0, R::ecx, 29, V3, false, F::f16c, "f16c"},
    {1, 0, R::ecx, 30, V3, false, F::rdrand, "rdrand"},
    {1, 0, R::ecx, 31, A, true, F::base, "hypervisor"},

    {7, 0, R::ebx, 0, A, true, F::fsgsbase, "fsgsbase"},
    {7, 0, R::ebx, 1, A, true, F::base, "tsc_adjust"},
    {7, 0, R::ebx, 3, V3, false, F::bmi1, "bmi1"},
    {7, 0, R::ebx, 5, V3, false, F::avx2, "avx2"},
    {7, 0, R::ebx, 7, A, true, F::base, "smep"},
    {7, 0, R::ebx, 8, V3, false, F::bmi2, "bmi2"},
    {7, 0, R::ebx, 9, A, false, F::base, "erms"},
    {7, 0, R::ebx, 10, A, true, F::invpcid, "invpcid"},
    {7, 0, R::ebx, 18, V3, false, F::rdseed, "rdseed"},
    {7, 0, R::ebx, 19, V3, false, F::adx, "adx"},
    {7, 0, R::ebx, 20, A, true, F::smap, "smap"},
    {7, 0, R::ebx, 23, V3, false, F::clflushopt, "clflushopt"},
    {7, 0, R::ebx, 24, H, false, F::clwb, "clwb"},
    {7, 0, R::ebx, 29, V3, false, F::sha, "sha_ni"},
    {7, 0, R::ecx, 2, A, true, F::base, "umip"},
    {7, 0, R::ecx, 8, H, false, F::gfni, "gfni"},
    {7, 0, R::ecx, 9, H, false, F::vaes, "vaes"},
    {7, 0, R::ecx, 10, H, false, F::vpclmul, "vpclmulqdq"},
    {7, 0, R::ecx, 22, A, true, F::rdpid, "rdpid"},
    {7, 0, R::edx, 4, A, false, F::base, "fsrm"},
    {7, 1, R::eax, 4, H, false, F::avxvnni, "avx_vnni"},

    {0xd, 1, R::eax, 0, V3, false, F::xsaveopt, "xsaveopt"},
    {0xd, 1, R::eax, 1, V3, false, F::xsavec, "xsavec"},
    {0xd, 1, R::eax, 2, V3, true, F::base, "xgetbv1"},
    {0xd, 1, R::eax, 3, V3, false, F::xsaves, "xsaves"},

    {0x80000001, 0, R::edx, 11, A, true, F::syscall, "syscall"},
    {0x80000001, 0, R::edx, 20, A, true, F::base, "nx"},
    {0x80000001, 0, R::edx, 26, A, true, F::base, "pdpe1gb"},
    {0x80000001, 0, R::edx, 27, A, true, F::rdtscp, "rdtscp"},
    {0x80000001, 0, R::edx, 29, A, true, F::base, "lm"},
    {0x80000001, 0, R::ecx, 0, A, true, F::base, "lahf_lm"},
    {0x80000001, 0, R::ecx, 5, V3, false, F::lzcnt, "abm"},
    {0x80000001, 0, R::ecx, 8, A, true, F::prefetchw, "3dnowprefetch"},
    {0x80000007, 0, R::edx, 8, A, true, F::base, "constant_tsc"},
};

}  // namespace

std::span<const FeatureBit> featureBits() {
  return kBits;
}

}  // namespace lodge::x86
