// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "image/image.h"
#include "image/qcow2_header.h"

namespace lodge::image::qcow2 {

/// One internal snapshot, as its table has it.
struct Snapshot {
  SnapshotInfo about;
  std::uint64_t l1Offset = 0;
  std::uint32_t l1Entries = 0;
  std::string laterExtra{};  ///< extra data after the fields that are known (16 bytes), kept
  bool hasIcount = false;
  std::uint64_t icount = ~std::uint64_t{0};
};

/// Errors: corrupt, io. `tableBytes`: what the table takes.
Result<std::vector<Snapshot>> readSnapshots(BlockFile& file, const Header& header, std::uint64_t& tableBytes);
std::vector<std::byte> packSnapshots(const std::vector<Snapshot>& snapshots);

}  // namespace lodge::image::qcow2
