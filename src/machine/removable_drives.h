// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/disk.h"
#include "machine/config.h"

namespace lodge {

/// What to do with a drive's medium while the machine runs.
struct MediumChange {
  std::string drive{};    ///< "cd0", "floppy0"; empty: the machine's first drive
  std::string path{};     ///< the new medium; empty: take out what is there
  bool readOnly = false;  ///< of a floppy disk; CD-ROMs always are
  bool force = false;     ///< also if the guest has locked the tray
};

/// The drives of a machine whose media can be changed. I/O thread.
class RemovableDrives {
 public:
  /// Puts a medium in, or takes it out (null). False: the guest has locked the tray, and was told that somebody wants
  /// to open it.
  using Change = std::function<bool(std::shared_ptr<Disk> medium, bool force)>;

  void add(std::string name, bool cdrom, Change change);
  /// Errors: notFound (no such drive; hint: those that there are), busy (locked), and openDisk()'s.
  Status change(const MediumChange& change);

 private:
  struct Drive {
    std::string name;
    bool cdrom;
    Change change;
  };
  Result<Drive*> find(const std::string& name);

  std::vector<Drive> drives_;
};

/// The name of the drive that config.disks[index] makes: "cd0", "cd1"...; "floppy0"...
std::string removableDriveName(const MachineConfig& config, std::size_t index);

}  // namespace lodge
