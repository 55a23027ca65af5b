// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/tsc_scale.h"

namespace lodge::translate {

/// What of the host's CPU and kernel the translator can use.
struct HostFeatures {
  bool bmi1;             ///< BEXTR
  bool bmi2;             ///< PEXT, RORX
  bool lahf64;           ///< LAHF/SAHF in 64-bit mode; required
  bool fsgsbase;         ///< WRGSBASE allowed by the kernel
  bool sharing = false;  ///< user code is translated for all its linear addresses at once (likewise)
  bool returns = false;  ///< calls note where returns go (ReturnCache; with BMI2)
  /// Not the host's either, but the guest's time stamp counter by the host's (x86::TscScale).
  std::uint64_t tscRatio = x86::TscScale::kOne;
  bool strings = true;  ///< string instructions may run on host addresses (not the host's, but the translator's choice)
};

/// What there is, without what --trace host-without takes away.
HostFeatures hostFeatures();

/// This thread's GS base.
void setGsBase(std::uint64_t value);

}  // namespace lodge::translate
