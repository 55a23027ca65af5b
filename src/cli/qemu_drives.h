// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace lodge::cli {

/// qemu-system-x86_64's drives that are described in two options: -drive if=none,id=ID,... says what is in a drive, and
/// -device KIND,drive=ID what it hangs on.
class QemuDrives {
 public:
  using Settings = std::map<std::string, std::string>;

  /// -drive with if=none. `file` with doubled commas and `rest` (",readonly" and the like) as --disk takes them.
  void drive(const Settings& settings, const std::string& file, const std::string& rest);
  /// -device. False: it is nothing of disks.
  bool device(const std::string& kind, const Settings& settings);
  /// Appends --disk and --cdrom for each device, and a note for each drive without one. Errors: invalidArgument (no
  /// such drive, controller or place; two devices with one drive), unsupported (a disk's bus for a CD-ROM).
  Status finish(std::vector<std::string>& words, std::vector<std::string>& notes) const;

 private:
  struct Drive {
    std::string id, file, rest;
    bool cdrom;
  };
  struct Device {
    std::string kind, drive, bus, controller, unit, bootIndex;
    bool cdrom;
  };
  std::string busOf(const Device& device) const;
  /// The place on the board's IDE as --disk's and --cdrom's setting; empty where the next free one will do.
  Result<std::string> placeOf(const Device& device) const;

  std::vector<Drive> drives_;
  std::vector<Device> devices_;
  std::vector<std::string> ahcis_;  ///< ids of AHCI controllers
};

}  // namespace lodge::cli
