// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "image/block_file.h"
#include "image/image.h"

namespace lodge::image {

/// How far names inside images (backing, extents, data files) may lead.
enum class PathPolicy : std::uint8_t {
  imageFolder,  ///< only below the folder of the image that has the name, after symbolic links
  anywhere,     ///< the user vouches for the image
};

struct OpenOptions {
  FileMode file{};
  PathPolicy paths = PathPolicy::imageFolder;
  /// Further files or folders that the user named; names in images may lead to them and below.
  std::vector<std::string> allowedPaths{};
  bool openBacking = true;  ///< false: only this image (info, rebase -u); unallocated ranges read as zero
  bool forCheck = false;    ///< open as much as can be opened of a damaged image (check -r)
  std::string snapshot{};   ///< id or name of an internal snapshot to read instead
  /// Driver's own, by name.
  std::map<std::string, std::string> extra{};
};

/// What a driver's open() works with. It copies what it keeps.
struct OpenContext {
  std::string path;                 ///< of `file`, as it was opened
  std::shared_ptr<BlockFile> file;  ///< the first file, open as options.file says
  OpenOptions options;
  FileSpace* files = nullptr;        ///< for its further files; outlives the image
  std::vector<std::string> chain{};  ///< canonical names of the images above and this one, for loops
};

/// A backing image (or parent) that an image names. `format` empty: by content. Always read-only. Applies the path
/// policy, detects loops, limits the chain's depth. Errors: notFound, corrupt (a loop, too deep), permissionDenied
/// (outside the image's folder; hint how to allow it).
Result<std::unique_ptr<Image>> openBacking(const OpenContext& above, const std::string& name,
                                           const std::string& format);
/// A further file that belongs to the image (extent, external data), under the same policy; opened as
/// options.file says.
Result<std::shared_ptr<BlockFile>> openCompanion(const OpenContext& image, const std::string& name);
/// The path that a name inside the image means: relative names count from the image's folder. Errors: invalidArgument
/// (empty, over 4095 bytes, has a NUL), permissionDenied (policy).
Result<std::string> resolveName(const OpenContext& image, const std::string& name);

/// A value of -o; how to print and complete it.
struct FormatOption {
  std::string_view name;
  std::string_view value;  ///< "SIZE", "on|off", "NAME"; choices are separated by '|'
  std::string_view initial;
  std::string_view help;
};

struct CreateRequest {
  std::string path;
  std::string finalPath{};  ///< where the file will be moved to: what names inside it are made of; empty: path
  std::uint64_t bytes = 0;  ///< the virtual disk's size, rounded up to 512 by the caller
  std::map<std::string, std::string> options{};  ///< checked against the driver's list by the caller
  /// The backing image as it is to be recorded; empty without. Its size was taken into account by the caller.
  std::string backingName{}, backingFormat{};
  Preallocation preallocation = Preallocation::off;  ///< createImage() sets it from the option of that name
  FileSpace* files = nullptr;
  bool replace = false;
  Progress progress{};  ///< of reserving the disk's room

  const std::string& lastingPath() const { return finalPath.empty() ? path : finalPath; }
  std::string option(std::string_view name, std::string_view otherwise = {}) const;
};

/// The image that the new one will be based on, as the user named it. Errors: as openImage().
Result<std::unique_ptr<Image>> openNewParent(const CreateRequest& request);
/// It is not of the format's own kind, called `what`, and has to be.
Error wrongParent(const CreateRequest& request, std::string_view what);

/// What a driver looks at to recognize a file.
struct Probe {
  std::span<const std::byte> head;  ///< the first bytes, up to 4096
  std::span<const std::byte> tail;  ///< the last bytes, up to 4096 (a fixed VHD has its footer there)
  std::uint64_t fileBytes = 0;
  std::string_view name{};
};

/// One format: a row of the table. Everything that is said about formats elsewhere comes from here.
struct FormatDriver {
  std::string_view name;
  std::string_view summary;  ///< a line for help
  std::vector<std::string_view> aliases{};
  std::vector<std::string_view> suffixes{};  ///< of file names, without the dot; the first is the usual one
  /// How sure: 0 no, 100 a magic number. Raw takes what nobody else wants.
  int (*probe)(const Probe& probe) = nullptr;
  Result<std::unique_ptr<Image>> (*open)(const OpenContext& context) = nullptr;
  /// Makes an empty image (all zero, or the backing's content). nullptr: read only. Errors as FileSpace::create(), and
  /// invalidArgument for sizes and options that cannot be.
  Status (*create)(const CreateRequest& request) = nullptr;
  std::vector<FormatOption> options{};
  bool backing = false;      ///< create takes backingName
  bool compression = false;  ///< convert -c means something
  bool snapshots = false;    ///< internal ones
  bool sparse = true;        ///< what was never written takes no room
};

/// All formats, raw last.
std::span<const FormatDriver* const> allFormats();
/// By name or alias, or nullptr.
const FormatDriver* findFormat(std::string_view name);
/// By the file name's suffix, or nullptr.
const FormatDriver* formatOfSuffix(std::string_view path);
/// By content; never nullptr (raw). Errors: as BlockFile.
Result<const FormatDriver*> probeFormat(BlockFile& file);
/// invalidArgument for an unknown name, with the names there are.
Result<const FormatDriver*> formatNamed(std::string_view name);

/// Opens an image and its chain. `format` empty: by content. `path` may be an nbd:// or nbd+unix:// address.
/// Errors: as FileSpace::open(), corrupt, unsupported (naming the feature).
Result<std::unique_ptr<Image>> openImage(const std::string& path, const std::string& format, const OpenOptions& options,
                                         FileSpace& files = hostFiles());
/// Checks options against the driver's list, then makes the image. Errors: as FormatDriver::create().
Status createImage(const FormatDriver& driver, CreateRequest request);

/// Values of options. Errors: invalidArgument, naming the option.
Result<std::uint64_t> sizeOption(const CreateRequest& request, std::string_view name, std::uint64_t otherwise);
Result<Preallocation> parsePreallocation(std::string_view text);
Result<bool> switchOption(const CreateRequest& request, std::string_view name, bool otherwise);

}  // namespace lodge::image
