// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "image/qcow2_header.h"

namespace lodge::image::qcow2 {

/// `stored` may be longer than the compressed data (it ends on a sector). `cluster` is filled or EIO. Any thread.
int decompress(Compression type, std::span<const std::byte> stored, std::span<std::byte> cluster);
/// Into `stored`; left empty if that is not smaller than the cluster. Any thread.
int compress(Compression type, std::span<const std::byte> cluster, std::vector<std::byte>& stored);

}  // namespace lodge::image::qcow2
