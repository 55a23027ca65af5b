// SPDX-License-Identifier: Apache-2.0
#include "image/image_files.h"

#include <algorithm>

#include "image/format.h"
#include "image/nbd_client.h"
#include "image/patience.h"

namespace lodge::image {

namespace {

/// The host's files, with a note of each that is opened.
class NotedFiles : public FileSpace {
 public:
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) override {
    auto used = isNetworkDisk(path) ? openedNbd(path) : nullptr;
    auto file = used ? Result<std::shared_ptr<BlockFile>>(used) : hostFiles().open(path, mode);
    if (file && std::ranges::find(paths, path) == paths.end()) paths.push_back(path);
    return file;
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override {
    return Error(ErrorKind::internal, "creating '" + path + "' where files are only looked at");
  }
  Result<std::string> canonical(const std::string& path) override { return hostFiles().canonical(path); }

  std::vector<std::string> paths;
};

}  // namespace

bool isNetworkDisk(const std::string& path) {
  return path.find("://") != std::string::npos;
}

Result<std::vector<std::string>> filesOf(const DiskOptions& options) {
  if (isNetworkDisk(options.path) && options.format.empty()) return std::vector<std::string>{};
  Impatience limited;
  NotedFiles files;
  OpenOptions how;
  how.file.lock = LockMode::share;
  how.allowedPaths = options.allowedPaths;
  auto image = openImage(options.path, options.format, how, files);
  if (!image) return std::move(image).error();
  return std::move(files.paths);
}

std::string formatByContent(const std::string& path) {
  Impatience limited;
  std::shared_ptr<BlockFile> file;
  if (isNetworkDisk(path)) {
    file = openedNbd(path);
  } else if (auto opened = hostFiles().open(path, {.lock = LockMode::share})) {
    file = std::move(*opened);
  }
  if (!file) return {};
  auto driver = probeFormat(*file);
  return driver ? std::string((*driver)->name) : std::string();
}

}  // namespace lodge::image
