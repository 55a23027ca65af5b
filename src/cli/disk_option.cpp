// SPDX-License-Identifier: Apache-2.0
#include "cli/disk_option.h"

#include "base/text.h"
#include "image/format.h"

namespace lodge::cli {

Result<DriveConfig> parseDisk(std::string_view text) {
  constexpr const char* kForm =
      "write --disk FILE[,format=FORMAT][,readonly][,snapshot][,bus=virtio|ide][,allow-path=PATH]";
  std::string what = "--disk " + inQuotes(text);
  DriveConfig disk;
  std::vector<std::string> fields = splitFields(text, ',');
  disk.path = fields[0];
  if (disk.path.empty()) return Error(ErrorKind::invalidArgument, what + " names no file").withHint(kForm);
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const std::string& field = fields[i];
    if (field == "readonly") {
      disk.readOnly = true;
    } else if (field == "snapshot") {
      disk.snapshot = true;
    } else if (field.starts_with("allow-path=") && field.size() > 11) {
      disk.allowedPaths.push_back(field.substr(11));
    } else if (field == "bus=ide") {
      disk.bus = DriveBus::ide;
    } else if (field == "bus=virtio") {
      disk.bus = DriveBus::virtio;
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
