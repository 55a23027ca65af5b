// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace lodge {

/// `text` in single quotes, with control characters and bytes over 0x7e as \xNN: safe to print on a terminal.
std::string inQuotes(std::string_view text);

/// The parts of `text` between `separator`s; a doubled separator stands for itself ("a,,b,c" is "a,b" and "c").
std::vector<std::string> splitFields(std::string_view text, char separator);

/// The parts of `text` between `separator`s, empty ones too.
std::vector<std::string_view> split(std::string_view text, char separator);

std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// A decimal or 0x-prefixed hexadecimal number from 0 to `max`, with nothing around it.
std::optional<std::uint64_t> parseNumber(std::string_view text, std::uint64_t max = UINT64_MAX);

/// Bytes from a number with a unit: "512M", "1G", "1.5GiB", "64k" (units are powers of 1024; K, M, G, T with an
/// optional iB). A number alone is refused: nobody agrees on its unit. Errors: invalidArgument with a hint.
Result<std::uint64_t> parseSize(std::string_view text);

/// "512 MiB", "1.5 GiB": three significant digits at most where it is not exact.
std::string formatSize(std::uint64_t bytes);

/// "12 s", "3 min 5 s", "2 h 10 min", "3 d 4 h".
std::string formatDuration(std::uint64_t seconds);

/// The candidate closest to `text` by edit distance, if it is close enough to be a slip of the fingers; else empty.
std::string_view closest(std::string_view text, const std::vector<std::string_view>& candidates);

}  // namespace lodge
