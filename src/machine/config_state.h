// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machine/config.h"
#include "machine/removable_drives.h"
#include "state/archive.h"

namespace lodge {

/// Saves or loads a machine's configuration. What was loaded still has to pass validate().
void transfer(state::Archive& a, MachineConfig& config);

/// The same machine from another working directory: its paths are absolute.
MachineConfig withAbsolutePaths(MachineConfig config);

/// Notes that a drive has another medium now: what the machine is to be restored with.
void noteMedium(MachineConfig& config, const MediumChange& change);

/// What a disk's file was when the machine was saved.
struct DiskIdentity {
  std::string path;
  std::uint64_t bytes = 0;
  std::int64_t changed = 0;  ///< nanoseconds since 1970, of its last change; 0: not a file

  /// Errors: the host's, from stat().
  static Result<DiskIdentity> of(const std::string& path);
};
void transfer(state::Archive& a, DiskIdentity& identity);

/// What a machine's disks were.
struct SavedDisks {
  std::vector<DiskIdentity> disks;                   ///< a file each
  std::optional<std::vector<DiskIdentity>> further;  ///< extents and images behind them; older states do not tell
};
void transfer(state::Archive& a, SavedDisks& disks);

/// The disks of a machine whose contents belong to its state. Errors: unsupported (a disk whose changes are dropped at
/// the machine's end), DiskIdentity::of()'s, image::filesOf()'s.
Result<SavedDisks> disksOf(const MachineConfig& config);
/// Whether they are now what they were. Errors: invalidArgument, with the name of one that is not; disksOf()'s.
Status compareDisks(const SavedDisks& saved, const MachineConfig& config);

}  // namespace lodge
