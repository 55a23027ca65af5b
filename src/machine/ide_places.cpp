// SPDX-License-Identifier: Apache-2.0
#include "machine/ide_places.h"

#include <fmt/format.h>

#include <array>

#include "base/text.h"

namespace lodge {

Result<std::map<std::size_t, unsigned>> idePlaces(const MachineConfig& config) {
  constexpr std::size_t kFree = SIZE_MAX;
  std::array<std::size_t, 4> units{kFree, kFree, kFree, kFree};
  for (std::size_t index = 0; index < config.disks.size(); ++index) {
    const DriveConfig& drive = config.disks[index];
    if (!drive.unit) continue;
    std::string which = drive.path.empty() ? "an empty drive" : inQuotes(drive.path);
    if (drive.bus != DriveBus::ide || *drive.unit >= units.size()) {
      return Error(ErrorKind::invalidArgument, fmt::format("unit={} of {}", *drive.unit, which))
          .withHint("unit= takes 0 to 3, and goes with bus=ide");
    }
    std::size_t& at = units[*drive.unit];
    if (at != kFree) {
      const std::string& other = config.disks[at].path;
      return Error(ErrorKind::invalidArgument, fmt::format("two drives on IDE unit {}: {} and {}", *drive.unit,
                                                           other.empty() ? "an empty drive" : inQuotes(other), which))
          .withHint("give one of them another unit= from 0 to 3, or leave unit= out");
    }
    at = index;
  }
  for (std::size_t index = 0; index < config.disks.size(); ++index) {
    const DriveConfig& drive = config.disks[index];
    if (drive.bus != DriveBus::ide || drive.unit) continue;
    bool placed = false;
    for (unsigned candidate : drive.cdrom ? std::array{2u, 3u, 1u, 0u} : std::array{0u, 1u, 2u, 3u}) {
      if (placed || units.at(candidate) != kFree) continue;
      units.at(candidate) = index;
      placed = true;
    }
    if (!placed) {
      return Error(ErrorKind::invalidArgument, "more than four IDE drives")
          .withHint("the pc board has four; put disks on virtio with --disk FILE");
    }
  }
  std::map<std::size_t, unsigned> places;
  for (unsigned unit = 0; unit < units.size(); ++unit) {
    if (units.at(unit) != kFree) places[units.at(unit)] = unit;
  }
  return places;
}

}  // namespace lodge
