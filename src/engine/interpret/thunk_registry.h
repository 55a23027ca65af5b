// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace lodge::interpret {

/// Process-wide list of thunk areas, for the SIGFPE handler. A fixed number of places, more than there can be vCPUs in
/// a process.
inline constexpr unsigned kMaxThunkAreas = 1024;

/// False: no place left.
bool registerThunkArea(std::byte* executable, std::size_t bytes);
void unregisterThunkArea(std::byte* executable);
/// Start of the area that holds `ip`, or null.
std::byte* thunkAreaOf(std::uint64_t ip);

}  // namespace lodge::interpret
