// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cli/image_common.h"

namespace lodge::cli {

/// The format to write: as named, or by the file name's suffix (qemu-img does not look at that), or raw.
Result<const image::FormatDriver*> targetFormat(const std::string& named, const std::string& path,
                                                const Program& program);
/// Whether -o help is among the settings, and what to print then.
bool asksForSettings(const Invocation& invocation);
std::string settingsHelp(const image::FormatDriver& driver);
/// Removes a setting that has an option of its own; returns the option's value, or the setting's.
inline std::string takeSetting(image::CreateRequest& request, const std::string& name, std::string given) {
  auto it = request.options.find(name);
  if (it == request.options.end()) return given;
  if (given.empty()) given = it->second;
  request.options.erase(it);
  return given;
}
/// Whether the image consists of more than the file that names it.
inline bool hasSeveralFiles(const image::FormatDriver& driver, const image::CreateRequest& request) {
  std::string kind = request.option("subformat");
  return driver.name == "vmdk" && (kind == "monolithicFlat" || kind.starts_with("twoGb"));
}

}  // namespace lodge::cli
