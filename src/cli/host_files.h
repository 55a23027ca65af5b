// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lodge::cli {

/// A file of /proc or /sys whole, without its last newline; empty if it cannot be read.
std::string hostFile(const std::string& path);
std::optional<std::uint64_t> hostNumber(const std::string& path);
const std::string& cpuinfo();

}  // namespace lodge::cli
