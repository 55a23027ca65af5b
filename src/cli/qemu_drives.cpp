// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_drives.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace lodge::cli {

namespace {
std::string valueOf(const QemuDrives::Settings& settings, const std::string& name) {
  auto it = settings.find(name);
  return it == settings.end() ? std::string() : it->second;
}
}  // namespace

void QemuDrives::drive(const Settings& settings, const std::string& file, const std::string& rest) {
  drives_.push_back({valueOf(settings, "id"), file, rest, valueOf(settings, "media") == "cdrom"});
}

bool QemuDrives::device(const std::string& kind, const Settings& settings) {
  if (kind == "ahci" || kind == "ich9-ahci") {
    ahcis_.push_back(valueOf(settings, "id"));
    return true;
  }
  if (kind.starts_with("virtio-scsi")) return true;
  static const std::map<std::string, std::string> kBuses{
      {"ide-hd", "ide"},   {"ide-cd", "ide"}, {"ide-drive", "ide"},         {"scsi-hd", "scsi"},
      {"scsi-cd", "scsi"}, {"nvme", "nvme"},  {"virtio-blk-pci", "virtio"}, {"virtio-blk", "virtio"},
  };
  auto known = kBuses.find(kind);
  if (known == kBuses.end()) return false;
  std::string drive = valueOf(settings, "drive");
  bool cdrom = kind.ends_with("-cd");
  if (drive.empty() && !cdrom) return true;
  devices_.push_back({kind, drive, known->second, valueOf(settings, "bus"), valueOf(settings, "unit"),
                      valueOf(settings, "bootindex"), cdrom});
  return true;
}

/// "ahci0.2" is a port of the controller with the id ahci0; "ide.0" a channel of the board's own.
std::string QemuDrives::busOf(const Device& device) const {
  if (device.bus != "ide") return device.bus;
  std::string controller = device.controller.substr(0, device.controller.find('.'));
  return std::ranges::count(ahcis_, controller) != 0 && !controller.empty() ? "ahci" : "ide";
}

Result<std::string> QemuDrives::placeOf(const Device& device) const {
  if (busOf(device) != "ide" || device.controller.empty()) return std::string();
  // Other boards have ide.0 to ide.5, each with one drive; here those take the next free places.
  auto channel = parseNumber(device.controller.starts_with("ide.") ? device.controller.substr(4) : "", 5);
  auto unit = parseNumber(device.unit.empty() ? "0" : device.unit, 1);
  if (!channel || !unit) {
    std::string place = device.controller + (device.unit.empty() ? "" : ",unit=" + device.unit);
    return Error(ErrorKind::invalidArgument, fmt::format("-device {}: there is no bus={}", device.kind, place))
        .withHint("IDE has ide.0 and ide.1 with unit=0 and unit=1; -device ahci,id=ID has ID.0 to ID.5");
  }
  return device.unit.empty() || *channel > 1 ? std::string() : fmt::format(",unit={}", 2 * *channel + *unit);
}

Status QemuDrives::finish(std::vector<std::string>& words, std::vector<std::string>& notes) const {
  for (const Device& device : devices_) {
    std::string file = "none", rest;
    bool cdrom = device.cdrom;
    if (!device.drive.empty()) {
      auto drive = std::ranges::find(drives_, device.drive, &Drive::id);
      if (drive == drives_.end()) {
        return Error(ErrorKind::invalidArgument,
                     fmt::format("-device {}: there is no drive {}", device.kind, inQuotes(device.drive)))
            .withHint("describe it with -drive if=none,id=" + device.drive + ",file=FILE");
      }
      if (std::ranges::count(devices_, device.drive, &Device::drive) > 1) {
        return Error(ErrorKind::invalidArgument,
                     fmt::format("drive {} is given to two devices", inQuotes(device.drive)));
      }
      file = drive->file;
      rest = drive->rest;
      cdrom = cdrom || drive->cdrom;
    }
    std::string bus = busOf(device);
    if (cdrom && (bus == "nvme" || bus == "virtio"))
      return Error(ErrorKind::unsupported, fmt::format("-device {} with a CD-ROM", device.kind))
          .withHint("use scsi-cd");
    std::string word = cdrom ? "--cdrom=" + file : "--disk=" + file + rest;
    auto place = placeOf(device);
    if (!place) return std::move(place).error();
    word += ",bus=" + bus + *place;
    if (!device.bootIndex.empty()) word += ",bootindex=" + device.bootIndex;
    words.push_back(word);
  }
  for (const Drive& drive : drives_) {
    if (std::ranges::count(devices_, drive.id, &Device::drive) != 0) continue;
    notes.push_back(fmt::format("-drive {}: if=none and no -device with drive={}: the guest does not see it",
                                inQuotes(drive.file), drive.id.empty() ? "ID" : drive.id));
  }
  return {};
}

}  // namespace lodge::cli
