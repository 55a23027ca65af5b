// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "image/format.h"
#include "image/ovf.h"
#include "image/tar.h"

namespace lodge::image::ovf {

/// An OVA archive, or an OVF descriptor with its files beside it, open for reading. Nothing is unpacked: the disks are
/// read where they are. Names inside it lead to its own members only.
class Reader {
 public:
  /// Errors: as FileSpace::open(); corrupt, unsupported; permissionDenied (a name that leads out of the package).
  static Result<std::unique_ptr<Reader>> open(const std::string& path, const std::string& configuration = {});

  const Package& package() const { return package_; }
  bool hasManifest() const { return !digests_.empty(); }
  /// What the files are called here, and where openImage() finds them.
  FileSpace& files() { return *space_; }
  /// The name that files() knows a member by.
  std::string pathOf(const std::string& member) const;

  /// Compares the digests of all files with the manifest. Errors: corrupt (naming the file), notFound, interrupted.
  Status verify(const Progress& progress);

 private:
  Reader() = default;
  Status readArchive(const std::string& path);
  Status readFolder(const std::string& path);
  Status interpret(const std::string& configuration);

  std::unique_ptr<FileSpace> space_;
  std::string folder_;      ///< of an OVF; empty for an OVA
  std::string descriptor_;  ///< member's name
  std::string text_, manifest_;
  Package package_;
  std::vector<Digest> digests_;
};

/// Whether the path is of an OVA or OVF, by its suffix.
bool isPackageName(std::string_view path);

/// The hexadecimal digest of a whole file ("SHA1", "SHA256", ...). `done` is counted up. Errors: io, interrupted.
Result<std::string> digestOf(BlockFile& file, const std::string& algorithm,
                             const std::function<bool(std::uint64_t)>& progress);

struct ExportDisk {
  std::string path, format;  ///< the image; format empty: by content
};
struct ExportRequest {
  std::string path;  ///< where to write
  std::string name;  ///< what it will be called: "x.ova" is one archive, "x.ovf" a descriptor with files beside it
  Machine machine;   ///< its disks are filled in from `disks`
  std::vector<ExportDisk> disks;
  OpenOptions open{};
  /// Copies the content of an image into a stream (convert's engine).
  std::function<Status(Image& from, Image& to)> copy;
};
/// Writes the package: streamOptimized disks, the descriptor, and a manifest with SHA-256. Errors: as openImage() and
/// FileSpace::create(); what copy says.
Status write(const ExportRequest& request);

}  // namespace lodge::image::ovf
