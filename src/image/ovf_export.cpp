// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "base/units.h"
#include "image/ovf_package.h"
#include "image/slice_file.h"

namespace lodge::image::ovf {

namespace {

/// The descriptor's place in an archive is kept before the disks are written, whose sizes it is to name: it is filled
/// up with line ends.
constexpr std::uint64_t kDescriptorRoom = 64_KiB;

/// Where the one file of an export is created: the rest of the archive.
class OneFile final : public FileSpace {
 public:
  OneFile(std::shared_ptr<BlockFile> file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode&) override {
    if (path == name_) return file_;
    return Error(ErrorKind::notFound, "open " + inQuotes(path));
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override {
    if (path == name_) return file_;
    return Error(ErrorKind::permissionDenied, "create " + inQuotes(path));
  }
  Result<std::string> canonical(const std::string& path) override { return path == name_ ? "/" + path : "/"; }

 private:
  std::shared_ptr<BlockFile> file_;
  std::string name_;
};

class Export {
 public:
  explicit Export(const ExportRequest& request) : request_(request), machine_(request.machine) {
    stem_ = request.name.substr(0, request.name.rfind('.'));
    archive_ = request.name.ends_with(".ova");
  }

  Status run() {
    // Names in the package must do for whoever reads it.
    if (!isSafeName(stem_) || stem_.size() > 80) {
      return Error(ErrorKind::invalidArgument,
                   "export to " + inQuotes(request_.name) + ": a shorter, plainer name is due");
    }
    machine_.disks.clear();
    return archive_ ? writeArchive() : writeFolder();
  }

 private:
  std::string diskName(std::size_t i) const { return fmt::format("{}-disk{}.vmdk", stem_, i + 1); }

  Status writeDisk(std::size_t i, std::shared_ptr<BlockFile> file) {
    auto source = openImage(request_.disks[i].path, request_.disks[i].format, request_.open);
    if (!source) return std::move(source).error();
    OneFile space(file, diskName(i));
    CreateRequest create;
    create.path = diskName(i);
    create.bytes = (*source)->size();
    create.options = {{"subformat", "streamOptimized"}};
    create.files = &space;
    const FormatDriver& driver = *findFormat("vmdk");
    if (Status made = createImage(driver, create); !made) return made;
    OpenOptions options;
    options.file = {.readOnly = false};
    auto target = openImage(create.path, "vmdk", options, space);
    if (!target) return std::move(target).error();
    if (Status copied = request_.copy(**source, **target); !copied) {
      return std::move(copied).error().context("disk " + inQuotes(request_.disks[i].path));
    }
    Disk disk;
    disk.file = diskName(i);
    disk.fileBytes = file->size();
    disk.capacity = (*target)->size();
    disk.streamOptimized = true;
    disk.populated = populatedOf(**source);
    machine_.disks.push_back(disk);
    auto hex = digestOf(*file, "SHA256", {});
    if (!hex) return std::move(hex).error();
    diskDigests_ += fmt::format("SHA256({})= {}\n", disk.file, *hex);
    return {};
  }

  static std::uint64_t populatedOf(Image& image) {
    std::uint64_t sum = 0;
    for (std::uint64_t at = 0; at < image.size();) {
      BlockStatus status;
      if (chainStatus(image, at, image.size() - at, status) != 0) break;
      if (status.kind == BlockStatus::Kind::data) sum += status.length;
      at += status.length;
    }
    return sum;
  }

  Result<std::string> manifestFor(const std::string& descriptor) {
    auto file = makeMemoryFile("descriptor", std::as_bytes(std::span(descriptor)));
    auto hex = digestOf(*file, "SHA256", {});
    if (!hex) return hex;
    return fmt::format("SHA256({}.ovf)= {}\n", stem_, *hex) + diskDigests_;
  }

  Status writeFolder() {
    std::string folder = folderOf(request_.path), prefix = folder == "." ? "" : folder + "/";
    for (std::size_t i = 0; i < request_.disks.size(); ++i) {
      auto file = hostFiles().create(prefix + diskName(i), true);
      if (!file) return std::move(file).error();
      if (Status written = writeDisk(i, *file); !written) return written;
    }
    std::string descriptor = write(machine_);
    auto manifest = manifestFor(descriptor);
    if (!manifest) return std::move(manifest).error();
    if (Status put = putFile(prefix + stem_ + ".mf", *manifest); !put) return put;
    return putFile(request_.path, descriptor);
  }

  static Status putFile(const std::string& path, const std::string& text) {
    auto file = hostFiles().create(path, true);
    if (!file) return std::move(file).error();
    int error = (*file)->write(0, text.data(), text.size());
    if (error == 0) error = (*file)->flush();
    if (error != 0) return Error::fromErrno(error, "write " + inQuotes(path));
    return {};
  }

  /// Order of members as DSP0243 asks for: descriptor, manifest, files.
  Status writeArchive() {
    auto file = hostFiles().create(request_.path, true);
    if (!file) return std::move(file).error();
    archiveFile_ = *file;
    std::uint64_t manifestBytes = fmt::format("SHA256({}.ovf)= {:064}\n", stem_, 0).size();
    for (std::size_t i = 0; i < request_.disks.size(); ++i) {
      manifestBytes += fmt::format("SHA256({})= {:064}\n", diskName(i), 0).size();
    }
    std::uint64_t manifestAt = tar::kBlock + kDescriptorRoom;
    std::uint64_t at = manifestAt + tar::kBlock + alignUp(manifestBytes, tar::kBlock);
    for (std::size_t i = 0; i < request_.disks.size(); ++i) {
      auto slice = makeTailSlice(archiveFile_, at + tar::kBlock, diskName(i));
      if (Status written = writeDisk(i, slice); !written) return written;
      if (Status put = putHeader(diskName(i), slice->size(), at); !put) return put;
      at += tar::kBlock + alignUp(slice->size(), tar::kBlock);
    }
    std::string descriptor = write(machine_);
    if (descriptor.size() > kDescriptorRoom) {
      return Error(ErrorKind::unsupported, "an OVF descriptor of more than 64 KiB").withHint("export to an .ovf");
    }
    descriptor.resize(kDescriptorRoom, '\n');
    auto manifest = manifestFor(descriptor);
    if (!manifest) return std::move(manifest).error();
    if (Status put = putMember(stem_ + ".ovf", descriptor, 0); !put) return put;
    if (Status put = putMember(stem_ + ".mf", *manifest, manifestAt); !put) return put;
    // Two blocks of zeroes end it, and it is a multiple of 10 KiB.
    int error = archiveFile_->truncate((at + 2 * tar::kBlock + 10239) / 10240 * 10240);
    if (error == 0) error = archiveFile_->flush();
    if (error != 0) return Error::fromErrno(error, "write " + inQuotes(request_.path));
    return {};
  }

  Status putHeader(const std::string& name, std::uint64_t bytes, std::uint64_t at) {
    std::vector<std::byte> header = tar::makeHeader(name, bytes);
    if (int error = archiveFile_->write(at, header.data(), header.size()); error != 0) {
      return Error::fromErrno(error, "write " + inQuotes(request_.path));
    }
    return {};
  }
  Status putMember(const std::string& name, const std::string& text, std::uint64_t at) {
    if (Status put = putHeader(name, text.size(), at); !put) return put;
    if (int error = archiveFile_->write(at + tar::kBlock, text.data(), text.size()); error != 0) {
      return Error::fromErrno(error, "write " + inQuotes(request_.path));
    }
    return {};
  }

  const ExportRequest& request_;
  Machine machine_;
  std::string stem_, diskDigests_;
  std::shared_ptr<BlockFile> archiveFile_;
  bool archive_ = false;
};

}  // namespace

Status write(const ExportRequest& request) {
  return Export(request).run();
}

}  // namespace lodge::image::ovf
