// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/text.h"
#include "image/format.h"

namespace lodge::image {

namespace {

/// Longer chains are taken for an attack on memory and file descriptors.
constexpr std::size_t kMaxChain = 256;

bool isAddress(std::string_view name) {
  return name.starts_with("nbd://") || name.starts_with("nbd+unix://");
}

bool isBelow(const std::string& path, std::string folder) {
  if (path == folder) return true;
  if (!folder.ends_with("/")) folder += "/";
  return path.starts_with(folder);
}

Result<std::unique_ptr<Image>> openLayer(const std::string& path, const std::string& format, const OpenOptions& options,
                                         FileSpace& files, std::vector<std::string> chain) {
  auto found = isAddress(path) ? Result<std::string>(path) : files.canonical(path);
  std::string name = found ? *found : path;  // where there is no such file, open() says so
  if (std::count(chain.begin(), chain.end(), name) != 0)
    return Error(ErrorKind::corrupt, "the backing chain comes back to " + inQuotes(path));
  if (chain.size() >= kMaxChain)
    return Error(ErrorKind::corrupt, fmt::format("the backing chain is longer than {} images", kMaxChain));
  chain.push_back(std::move(name));
  auto file = files.open(path, options.file);
  if (!file) return std::move(file).error();
  auto driver = format.empty() ? probeFormat(**file) : formatNamed(format);
  if (!driver) return std::move(driver).error();
  OpenContext context{path, std::move(*file), options, &files, std::move(chain)};
  auto image = (*driver)->open(context);
  if (!image) return std::move(image).error().context(fmt::format("{} image {}", (*driver)->name, inQuotes(path)));
  return image;
}

}  // namespace

Result<std::unique_ptr<Image>> openImage(const std::string& path, const std::string& format, const OpenOptions& options,
                                         FileSpace& files) {
  return openLayer(path, format, options, files, {});
}

Result<std::string> resolveName(const OpenContext& image, const std::string& name) {
  std::string what = fmt::format("{} names {}", inQuotes(image.path), inQuotes(name.substr(0, 200)));
  bool anywhere = image.options.paths == PathPolicy::anywhere;
  if (name.empty() || name.size() > 4095 || name.find('\0') != std::string::npos)
    return Error(ErrorKind::invalidArgument, what + ": not a file's name");
  if (isAddress(name)) {
    if (anywhere || std::count(image.options.allowedPaths.begin(), image.options.allowedPaths.end(), name) != 0)
      return name;
    return Error(ErrorKind::permissionDenied, what + ": an image does not decide what to connect to")
        .withHint("allow it with --allow-path " + name);
  }
  std::string path = name.starts_with("file:") ? name.substr(5) : name;
  std::size_t colon = path.find(':');
  if (path.starts_with("json:") || (colon != std::string::npos && path.compare(colon, 3, "://") == 0))
    return Error(ErrorKind::unsupported, what + ": only files and nbd addresses can be opened");
  if (!path.starts_with("/")) {
    if (isAddress(image.path))
      return Error(ErrorKind::invalidArgument, what + ": an address has no folder for it to be in");
    std::string folder = folderOf(image.path);
    if (folder != ".") path = (folder == "/" ? folder : folder + "/") + path;
  }
  if (anywhere) return path;
  auto real = image.files->canonical(path);
  if (!real) return std::move(real).error().context(what);
  std::vector<std::string> allowed = image.options.allowedPaths;
  if (!isAddress(image.path)) allowed.push_back(folderOf(image.path));
  for (const std::string& place : allowed) {
    auto folder = image.files->canonical(place);
    if (folder && isBelow(*real, *folder)) return path;
  }
  return Error(ErrorKind::permissionDenied, what + ", which is outside the image's folder")
      .withHint("allow it with --allow-path " + folderOf(*real));
}

Result<std::unique_ptr<Image>> openBacking(const OpenContext& above, const std::string& name,
                                           const std::string& format) {
  auto path = resolveName(above, name);
  if (!path) return std::move(path).error().context("backing image");
  OpenOptions options = above.options;
  options.file.readOnly = true;
  options.snapshot.clear();
  options.forCheck = false;
  options.extra.clear();
  auto image = openLayer(*path, format, options, *above.files, above.chain);
  if (!image) return std::move(image).error().context("backing image");
  return image;
}

Result<std::unique_ptr<Image>> openNewParent(const CreateRequest& request) {
  std::string path = request.backingName, folder = folderOf(request.lastingPath());
  if (!path.starts_with("/") && folder != ".") path = folder + "/" + path;
  OpenOptions options;
  options.paths = PathPolicy::anywhere;
  auto parent = openImage(path, request.backingFormat, options, *request.files);
  if (!parent) return std::move(parent).error().context("parent");
  return parent;
}

Error wrongParent(const CreateRequest& request, std::string_view what) {
  return Error(ErrorKind::invalidArgument, fmt::format("parent {} is not a {}", inQuotes(request.backingName), what))
      .withHint("qcow2 images take a backing image of any format");
}

Result<std::shared_ptr<BlockFile>> openCompanion(const OpenContext& image, const std::string& name) {
  auto path = resolveName(image, name);
  if (!path) return std::move(path).error();
  return image.files->open(*path, image.options.file);
}

}  // namespace lodge::image
