// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "image/vdi_image.h"

namespace lodge::image::vdi {

namespace {

constexpr unsigned kMostCandidates = 4096;

bool hasUuid(FileSpace& files, const std::string& path, const Uuid& wanted) {
  auto file = files.open(path, {.readOnly = true, .lock = LockMode::share});
  if (!file) return false;
  Header header{};
  if ((*file)->read(0, &header, sizeof header) != 0) return false;
  return header.signature == kSignature && header.created == wanted;
}

}  // namespace

Result<std::string> findParent(const OpenContext& child, const Uuid& parent) {
  // The format keeps no name, only the parent's UUID: VirtualBox knows the rest from its registry.
  if (auto named = child.options.extra.find("parent"); named != child.options.extra.end()) return named->second;
  std::string folder = folderOf(child.path);
  std::string guess = "{" + formatUuid(parent, true) + "}.vdi";
  if (hasUuid(*child.files, folder + "/" + guess, parent)) return guess;
  if (child.files == &hostFiles()) {
    std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(folder.c_str()), ::closedir);
    for (unsigned n = 0; listing && n < kMostCandidates; ++n) {
      const dirent* found = ::readdir(listing.get());
      if (!found) break;
      std::string name = found->d_name;
      if (name.ends_with(".vdi") && hasUuid(*child.files, folder + "/" + name, parent)) return name;
    }
  }
  return Error(ErrorKind::notFound,
               fmt::format("no image with its parent's UUID {} is beside it", formatUuid(parent, true)))
      .withHint("copy the parent image into the same folder");
}

}  // namespace lodge::image::vdi
