// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lodge::image {

/// Nothing if `text` is not UTF-8.
std::optional<std::u16string> toUtf16(std::string_view text);
/// Up to the first NUL; nothing if there is a lone surrogate.
std::optional<std::string> fromUtf16(std::u16string_view text);

/// A path as Windows writes it, relative to a folder, as one of this host: "..\a\b.vhd" is "../a/b.vhd". What has a
/// drive or a server keeps only its last part.
std::string fromWindowsPath(std::string path);
/// "a/b.vhd" as ".\a\b.vhd"; an absolute path stays absolute.
std::string toWindowsPath(std::string path);

}  // namespace lodge::image
