// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machine/config.h"
#include "machine/disk_identity.h"
#include "machine/removable_drives.h"
#include "state/archive.h"

namespace lodge {

/// Saves or loads a machine's configuration. What was loaded still has to pass validate().
void transfer(state::Archive& a, MachineConfig& config);

/// The same machine from another working directory: its paths are absolute.
MachineConfig withAbsolutePaths(MachineConfig config);

/// Notes that a drive has another medium now: what the machine is to be restored with.
void noteMedium(MachineConfig& config, const MediumChange& change);

/// What a machine's disks were.
struct SavedDisks {
  std::vector<DiskIdentity> disks;                   ///< a file or device each
  std::optional<std::vector<DiskIdentity>> further;  ///< extents and images behind them; older states do not tell
  bool network = false;  ///< of network disks the content is told, too, and those behind others are there; likewise
};
void transfer(state::Archive& a, SavedDisks& disks);

/// The disks of a machine whose contents belong to its state, and which it has open. Errors: unsupported (a disk whose
/// changes are dropped at the machine's end), DiskIdentity::of()'s, image::filesOf()'s.
/// A network disk that the guest does not write to and that cannot be read is not compared later.
Result<SavedDisks> disksOf(const MachineConfig& config);
/// Whether the servers of network disks that the guest writes to answer, before the machine stands still for them.
/// Errors: DiskIdentity::of()'s.
Status networkDisksAnswer(const MachineConfig& config);
/// Whether they are now what they were. Before the machine has them open network disks, and what is behind disks where
/// there are such, are left out; when it has (`opened`), that is compared. Errors: invalidArgument, with the name of
/// one that is not; disksOf()'s.
Status compareDisks(const SavedDisks& saved, const MachineConfig& config, bool opened);

}  // namespace lodge
