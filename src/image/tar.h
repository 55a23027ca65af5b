// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/block_file.h"

namespace lodge::image::tar {

struct Member {
  std::string name;
  std::uint64_t offset = 0;  ///< of its content in the archive
  std::uint64_t bytes = 0;
};

/// The regular files of a tar archive (ustar, GNU and pax long names and sizes), in order. Links, devices and
/// folders are left out. Errors: corrupt (a bad header, a size beyond the file), unsupported (too many members), io.
Result<std::vector<Member>> readIndex(BlockFile& file);

constexpr std::uint64_t kBlock = 512;
/// A ustar header for a regular file; sizes over 8 GiB in base 256, as GNU tar and OVA readers do. The name has at most
/// 100 bytes.
std::vector<std::byte> makeHeader(const std::string& name, std::uint64_t bytes);

}  // namespace lodge::image::tar
