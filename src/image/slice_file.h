// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "image/block_file.h"

namespace lodge::image {

/// `bytes` of a file from `offset` on, as a file of its own that is only read.
std::shared_ptr<BlockFile> makeSlice(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes,
                                     std::string name);
/// The end of a file from `offset` on, as a file of its own, empty at first: it grows as it is written.
std::shared_ptr<BlockFile> makeTailSlice(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::string name);

}  // namespace lodge::image
