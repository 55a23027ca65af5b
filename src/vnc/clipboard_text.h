// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lodge::vnc {

/// Forms of text on their way between clipboards. Here text is UTF-8 with lines that end with '\n'.

/// ISO 8859-1, of RFC 6143's messages. What it does not have becomes '?'.
std::string fromLatin1(std::string_view bytes);
std::string toLatin1(std::string_view text);

/// The payload of the extended clipboard's "provide" with the format text alone: compressed, lines with CR and LF,
/// a zero at the end. Nothing: not such, or no UTF-8, or more than `most` bytes of text.
std::optional<std::string> unpackText(std::string_view payload, std::size_t most);
std::string packText(std::string_view text);

/// Whole characters in their shortest form, no surrogates (RFC 3629).
bool isUtf8(std::string_view text);

}  // namespace lodge::vnc
