// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "x86/cpu_model.h"
#include "x86/model/host_cpu.h"

namespace lodge::x86 {

/// Who carries a feature out.
enum class Carrier : std::uint8_t {
  lodge,  ///< Lodge itself: offered whatever the host is
  host,   ///< guest instructions run on the host's own units: offered only where the host has it
};

/// From which model on a feature is offered.
enum class Tier : std::uint8_t {
  v2,          ///< every model; a host that lacks it cannot run any
  v2Optional,  ///< every model, where the host has it
  v3,          ///< x86-64-v3 and host; x86-64-v3 needs it
  v3Optional,  ///< x86-64-v3 and host, where the host has it (not part of the level, but cheap and common)
  v4,          ///< x86-64-v4 and host; x86-64-v4 needs it
  v4Optional,  ///< x86-64-v4 and host, where the host has it
  hostOnly,
};

enum class OnlyFor : std::uint8_t { any, intel, amd };

/// One CPUID feature bit that Lodge knows how to offer. A bit that is not in the table is never offered.
struct FeatureBit {
  const char* name;
  std::uint32_t leaf, subleaf;
  CpuidRegister reg;
  std::uint8_t bit;
  Carrier carrier;
  Tier tier;
  Feature feature = Feature::kCount;  ///< what it gates in the opcode table, or kCount
  OnlyFor vendor = OnlyFor::any;
};

std::span<const FeatureBit> featureBits();

}  // namespace lodge::x86
