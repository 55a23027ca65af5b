// SPDX-License-Identifier: Apache-2.0
#include "cli/disk_option.h"

#include "base/text.h"
#include "image/format.h"

namespace lodge::cli {

namespace {
Result<DriveBus> parseBus(const std::string& what, const std::string& name) {
  if (name == "virtio") return DriveBus::virtio;
  if (name == "ide") return DriveBus::ide;
  if (name == "ahci") return DriveBus::ahci;
  if (name == "nvme") return DriveBus::nvme;
  if (name == "scsi") return DriveBus::scsi;
  return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown bus {}", what, inQuotes(name)))
      .withHint("there are virtio, ide, ahci, nvme and scsi");
}

/// Settings that all drives have. False: it is none of them.
Result<bool> parseCommon(const std::string& what, const std::string& field, DriveConfig& drive) {
  if (field.starts_with("bus=")) {
    auto bus = parseBus(what, field.substr(4));
    if (!bus) return std::move(bus).error();
    drive.bus = *bus;
    return true;
  }
  if (field.starts_with("unit=")) {
    auto unit = parseNumber(field.substr(5), 3);
    if (!unit) return Error(ErrorKind::invalidArgument, what + ": IDE units have the numbers 0 to 3");
    drive.unit = static_cast<unsigned>(*unit);
    return true;
  }
  if (!field.starts_with("bootindex=")) return false;
  auto index = parseNumber(field.substr(10), 999);
  if (!index) return Error(ErrorKind::invalidArgument, what + ": bootindex is a number from 0 to 999");
  drive.bootIndex = static_cast<unsigned>(*index);
  return true;
}
}  // namespace

Result<DriveConfig> parseCdrom(std::string_view text) {
  constexpr const char* kForm = "write --cdrom FILE[,bus=ide|ahci|scsi][,unit=N][,bootindex=N]";
  std::string what = "--cdrom " + inQuotes(text);
  std::vector<std::string> fields = splitFields(text, ',');
  if (fields[0].empty()) return Error(ErrorKind::invalidArgument, "--cdrom names no file").withHint(kForm);
  DriveConfig drive;
  if (fields[0] != "none") drive.path = fields[0];
  drive.format = "raw";
  drive.readOnly = true;
  drive.bus = DriveBus::ide;
  drive.cdrom = true;
  for (std::size_t i = 1; i < fields.size(); ++i) {
    auto common = parseCommon(what, fields[i], drive);
    if (!common) return std::move(common).error();
    if (!*common) {
      return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown setting {}", what, inQuotes(fields[i])))
          .withHint(kForm);
    }
  }
  return drive;
}

Result<FloppyConfig> parseFloppy(std::string_view text) {
  constexpr const char* kForm = "write --floppy FILE[,readonly][,snapshot]";
  std::string what = "--floppy " + inQuotes(text);
  std::vector<std::string> fields = splitFields(text, ',');
  if (fields[0].empty()) return Error(ErrorKind::invalidArgument, "--floppy names no file").withHint(kForm);
  FloppyConfig drive;
  if (fields[0] != "none") drive.path = fields[0];
  for (std::size_t i = 1; i < fields.size(); ++i) {
    if (fields[i] == "readonly") {
      drive.readOnly = true;
    } else if (fields[i] == "snapshot") {
      drive.snapshot = true;
    } else {
      return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown setting {}", what, inQuotes(fields[i])))
          .withHint(kForm);
    }
  }
  return drive;
}

Result<DriveConfig> parseDisk(std::string_view text) {
  constexpr const char* kForm =
      "write --disk FILE[,format=FORMAT][,readonly][,snapshot][,bus=virtio|ide|ahci|nvme|scsi][,unit=N][,bootindex=N]"
      "[,allow-path=PATH]";
  std::string what = "--disk " + inQuotes(text);
  DriveConfig disk;
  std::vector<std::string> fields = splitFields(text, ',');
  disk.path = fields[0];
  if (disk.path.empty()) return Error(ErrorKind::invalidArgument, what + " names no file").withHint(kForm);
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const std::string& field = fields[i];
    auto common = parseCommon(what, field, disk);
    if (!common) return std::move(common).error();
    if (*common) continue;
    if (field == "readonly") {
      disk.readOnly = true;
    } else if (field == "snapshot") {
      disk.snapshot = true;
    } else if (field.starts_with("allow-path=") && field.size() > 11) {
      disk.allowedPaths.push_back(field.substr(11));
    } else if (field.starts_with("format=")) {
      disk.format = field.substr(7);
      if (auto known = image::formatNamed(disk.format); !known) return std::move(known).error().context(what);
    } else {
      return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown setting {}", what, inQuotes(field)))
          .withHint(kForm);
    }
  }
  return disk;
}

}  // namespace lodge::cli
