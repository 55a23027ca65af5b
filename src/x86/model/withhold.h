// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "x86/cpu_model.h"
#include "x86/model/feature_bits.h"

namespace lodge::x86 {

/// Takes every feature out of the model that it has and `keep` does not want: CPUID bit, what the decoder gates by it,
/// and the bits of control registers that come with it. Before there are CPUs.
void withholdFeatures(CpuModel& model, const std::function<bool(const FeatureBit&)>& keep);

}  // namespace lodge::x86
