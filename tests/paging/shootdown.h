// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lodge::paging {

/// One vCPU reads pages without end and invalidates those that it is told to; another changes their mappings and tells
/// it, as kernels do. Nothing may be read from a page that was taken away before the invalidation was acknowledged.
/// Returns what was wrong; "" if nothing was.
std::string shootdown(std::string_view engine, std::string trace, std::uint64_t seed, std::uint64_t changes);

}  // namespace lodge::paging
