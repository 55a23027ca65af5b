// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lodge::cli {

/// `text` broken at spaces into lines of at most `width` columns, each after `indent` spaces and ended by a newline.
/// Paragraphs (separated by an empty line) stay apart.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width);

/// A term at two spaces and its text beside it, or under it if the term is long.
std::string definition(std::string_view term, std::string_view text, std::size_t column, std::size_t width);

/// Rows as columns of equal width, two spaces between; the last is not padded. `rightAligned` columns hold numbers.
std::string columns(const std::vector<std::vector<std::string>>& rows,
                    const std::vector<std::size_t>& rightAligned = {});

/// Writes to standard output. False if that fails (a full disk): the caller's exit status should say so.
bool print(std::string_view text);

/// The width to lay text out for: the terminal's, 60 to 100; 80 if standard output is none.
std::size_t outputWidth();

}  // namespace lodge::cli
