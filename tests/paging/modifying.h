// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lodge::paging {

/// Three vCPUs, one of them the kernel, run functions at several linear addresses each and change some of their own;
/// a fourth and a device change the functions meanwhile: by one aligned store, after which a call may give the old
/// value or the new one until that vCPU has serialized; or as a whole, while the others wait (SDM vol. 3, 9.1.3). Each
/// call must give what was written. Returns what was wrong; "" if nothing was.
std::string modifying(std::string_view engine, std::string trace, std::uint64_t seed, std::uint64_t changes);

}  // namespace lodge::paging
