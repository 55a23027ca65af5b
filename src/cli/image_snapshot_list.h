// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/image_common.h"

namespace lodge::cli {

Json snapshotJson(const image::SnapshotInfo& snapshot);
/// With a head line.
std::string snapshotTable(const std::vector<image::SnapshotInfo>& snapshots);

}  // namespace lodge::cli
