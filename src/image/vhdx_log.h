// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "image/block_file.h"
#include "image/table_cache.h"
#include "image/vhdx_layout.h"

namespace lodge::image::vhdx {

/// What a log has to say about the file: changes in the order to make them.
struct Replay {
  struct Change {
    std::uint64_t offset = 0, length = 0;
    std::vector<std::byte> bytes{};  ///< empty: zeroes
  };
  std::vector<Change> changes;
  std::uint64_t fileBytes = 0;  ///< the file is to be this long at least
};

/// The active sequence of the log that `header` names (2.3.3); no changes if there is none. Errors: corrupt, io.
Result<Replay> readLog(BlockFile& file, const Header& header);

/// Makes the changes in the file. Returns 0 or an errno value.
int applyReplay(BlockFile& file, const Replay& replay);
/// The file as if the changes were made, which they are in memory only.
std::shared_ptr<BlockFile> withReplay(std::shared_ptr<BlockFile> file, Replay replay);

/// Makes changes to 4 KiB pages of the file so that a crash leaves all or none of an entry's, by the log.
/// One caller at a time.
class LogWriter {
 public:
  /// Nothing of an older log counts: `header.log` is new.
  explicit LogWriter(const Header& header) : header_(header) {}
  /// The pages are on the disk when this returns. Returns 0 or an errno value.
  int write(BlockFile& file, std::span<const TableCache::Copy> pages);

 private:
  int writeEntry(BlockFile& file, std::span<const TableCache::Copy> pages);

  Header header_;
  std::uint64_t sequence_ = 1, position_ = 0;
};

}  // namespace lodge::image::vhdx
