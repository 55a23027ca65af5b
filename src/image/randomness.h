// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

namespace lodge::image {

/// Whether the bytes are as good as random (encrypted, compressed already): all values equally often, and no longer
/// stretch said twice. No compressor gains by them, and finding that out by trying takes thirty times as long.
/// Stretches under a kilobyte may be missed, and of longer ones a few.
/// At most 128 KiB; short ones (below 4 KiB) never look random.
bool looksRandom(std::span<const std::byte> bytes);

}  // namespace lodge::image
