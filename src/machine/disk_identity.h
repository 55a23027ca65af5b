// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "state/archive.h"

namespace lodge {

/// What a file, block device or network disk that a disk is read from was when the machine was saved.
struct DiskIdentity {
  std::string path;
  std::uint64_t bytes = 0;
  std::int64_t changed = 0;  ///< a file's last change, nanoseconds since 1970; 0: not a file
  // Of a block device or a network disk, which has no time of change.
  std::uint32_t samples = 0;  ///< CRC-32C of its beginning and end and of places between
  // Of a block device.
  std::uint64_t written = 0;  ///< sectors that were ever written to it, since the host's start `boot`
  std::string boot;           ///< the host's boot_id; "": the host does not count them

  /// A network disk is read by the connection that this process has, or by a new one, for 10 s at most. Errors: the
  /// host's, the server's.
  static Result<DiskIdentity> of(const std::string& path);
  /// Whether a network disk can be read. Errors: of()'s.
  static Status answers(const std::string& path);
  /// Whether nothing says that it has changed. Of a block device that was written to since the same start of the host
  /// nothing is missed; after another one, and of a network disk, what lies between the samples is.
  bool isStill(const DiskIdentity& then) const;
};

/// Saves or loads one. Fields of block devices are there from version 3 on; older states do not tell of them.
void transfer(state::Archive& a, DiskIdentity& identity);

}  // namespace lodge
