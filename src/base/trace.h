// SPDX-License-Identifier: Apache-2.0
// Reading the --trace option: words and NAME=VALUE, separated by commas. And what of the host's the whole process does
// without, as on a host that lacks it (--trace host-without=A+B).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace lodge {

/// Whether `list` names `what`.
bool traces(std::string_view list, std::string_view what);

/// What the host may lack or forbid, and what Lodge has a way around.
enum class HostFeature : std::uint8_t {
  bmi1,           ///< BEXTR in translated code
  bmi2,           ///< PEXT, RORX in translated code
  fsgsbase,       ///< WRGSBASE; else arch_prctl
  membarrier,     ///< else entries that others might read half stay empty
  memfd,          ///< else an unlinked file in /dev/shm, /tmp or the current folder, and anonymous code memory
  userfaultfd,    ///< else mprotect finds stores to code
  avx512,         ///< in guests
  mappings,       ///< as if vm.max_map_count allowed but few, where mprotect finds stores to code
  reservation,    ///< as if the host had no address space for more than one soft TLB a vCPU
  kvmEvents,      ///< ioeventfd and irqfd; else exits and KVM_SIGNAL_MSI
  kvmDirtyRing,   ///< else bitmaps tell what was stored to video memory
  kvmCoalescing,  ///< else each store to the screen's window is an exit of its own
};
inline constexpr std::string_view kHostFeatureNames[] = {
    "bmi1",   "bmi2",     "fsgsbase",    "membarrier", "memfd",          "userfaultfd",
    "avx512", "mappings", "reservation", "kvm-events", "kvm-dirty-ring", "kvm-coalescing"};

/// Whether every host-without= of a --trace list names what there is. Errors: notFound.
Status checkHostFeatures(std::string_view list);
/// Takes them, for the rest of the process. Errors: notFound.
Status withholdHostFeatures(std::string_view list);
bool isWithheld(HostFeature feature);

}  // namespace lodge
