// SPDX-License-Identifier: Apache-2.0
#include "cli/disk_option.h"

#include "base/text.h"

namespace lodge::cli {

Result<DiskOptions> parseDisk(std::string_view text) {
  constexpr const char* kForm = "write --disk FILE[,format=raw][,readonly][,snapshot]";
  std::string what = "--disk " + inQuotes(text);
  DiskOptions disk;
  std::vector<std::string> fields = splitFields(text, ',');
  disk.path = fields[0];
  if (disk.path.empty()) return Error(ErrorKind::invalidArgument, what + " names no file").withHint(kForm);
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const std::string& field = fields[i];
    if (field == "readonly") {
      disk.readOnly = true;
    } else if (field == "snapshot") {
      disk.snapshot = true;
    } else if (field.starts_with("format=")) {
      disk.format = field.substr(7);
    } else {
      return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown setting {}", what, inQuotes(field)))
          .withHint(kForm);
    }
  }
  if (disk.format != "raw") {
    return Error(ErrorKind::unsupported, fmt::format("{}: format {} is not known", what, inQuotes(disk.format)))
        .withHint("this version opens raw images: convert it, for example with 'qemu-img convert -O raw'");
  }
  return disk;
}

}  // namespace lodge::cli
