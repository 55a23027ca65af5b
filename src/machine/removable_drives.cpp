// SPDX-License-Identifier: Apache-2.0
#include "machine/removable_drives.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "storage/floppy_format.h"

namespace lodge {

std::string removableDriveName(const MachineConfig& config, std::size_t index) {
  auto before = std::count_if(config.disks.begin(), config.disks.begin() + static_cast<std::ptrdiff_t>(index),
                              [](const DriveConfig& d) { return d.cdrom; });
  return fmt::format("cd{}", before);
}

void RemovableDrives::add(std::string name, bool cdrom, Change change) {
  drives_.push_back({std::move(name), cdrom, std::move(change)});
}

Result<RemovableDrives::Drive*> RemovableDrives::find(const std::string& name) {
  if (drives_.empty()) {
    return Error(ErrorKind::notFound, "the machine has no drive with a medium to change")
        .withHint("start it with --cdrom FILE or --floppy FILE; 'none' as the file makes an empty drive");
  }
  if (name.empty()) return &drives_.front();
  std::vector<std::string> names;
  for (Drive& drive : drives_) {
    if (drive.name == name) return &drive;
    names.push_back(drive.name);
  }
  return Error(ErrorKind::notFound, "the machine has no drive " + inQuotes(name))
      .withHint("its drives are " + join(names, ", "));
}

Status RemovableDrives::change(const MediumChange& change) {
  auto found = find(change.drive);
  if (!found) return std::move(found).error();
  Drive& drive = **found;
  std::shared_ptr<Disk> medium;
  if (!change.path.empty()) {
    DiskOptions options;
    options.path = change.path;
    options.format = "raw";
    options.readOnly = drive.cdrom || change.readOnly;
    auto opened = openDisk(options);
    if (!opened) return std::move(opened).error();
    medium = std::move(*opened);
    if (!drive.cdrom && !floppyFormatOf(medium->sizeBytes()))
      return notAFloppy(inQuotes(change.path), medium->sizeBytes());
  }
  if (drive.change(std::move(medium), change.force)) return {};
  return Error(ErrorKind::busy, fmt::format("the guest has locked drive {}", drive.name))
      .withHint("it has been told; try again when it has let go, or say --force");
}

}  // namespace lodge
