// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lodge::kvm {

/// "io", "mmio" for KVM_EXIT_IO, KVM_EXIT_MMIO...
std::string exitReasonName(std::size_t reason);

/// KVM's own counters behind a descriptor of KVM_GET_STATS_FD, as "kvm.exits"; none if it is -1 or not understood.
/// Any thread.
std::vector<std::pair<std::string, std::uint64_t>> readStatistics(int fd);

}  // namespace lodge::kvm
