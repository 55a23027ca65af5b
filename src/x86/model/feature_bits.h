// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "x86/opcodes.h"

namespace lodge::x86 {

/// An output register of CPUID.
enum class CpuidRegister : std::uint8_t { eax, ebx, ecx, edx };

/// From which microarchitecture level on a model named by level has a feature (System V ABI for x86-64, table 3.1), or
/// whether it comes with every model, or with `host` alone.
enum class Level : std::uint8_t { always, v2, v3, host };

/// One CPUID feature bit that Lodge can offer: the only place where these facts stand. A bit that is not listed is
/// never offered. `emulated`: Lodge does it itself, whether or not the host has it.
struct FeatureBit {
  std::uint32_t leaf, subleaf;
  CpuidRegister where;
  std::uint8_t bit;
  Level level;
  bool emulated;
  Feature feature;  ///< the opcodes that it gates; Feature::base for none of their own
  const char* name;
};

std::span<const FeatureBit> featureBits();

}  // namespace lodge::x86
