// SPDX-License-Identifier: Apache-2.0
#include "machine/flash_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "base/text.h"
#include "device/parallel_flash.h"
#include "image/file_lock.h"

namespace lodge {

namespace {
constexpr std::uint64_t kMaxFlash = 16_MiB;
constexpr const char* kFolder = "/usr/share/OVMF/";

Error withHintFor(Error error, const std::string& path) {
  bool installed = path.starts_with(kFolder) && error.kind() == ErrorKind::notFound;
  Error named = std::move(error).context("flash image " + inQuotes(path));
  return std::move(named).withHint(installed ? "install the package ovmf"
                                             : "check the path given to --pflash or --uefi-vars");
}

Result<std::vector<std::byte>> readImage(const std::string& path) {
  auto image = readFile(path, kMaxFlash);
  if (!image) return withHintFor(std::move(image).error(), path);
  if (image->empty() || image->size() % ParallelFlash::kBlock != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("flash image {}: {} bytes", inQuotes(path), image->size()))
        .withHint("a flash image is raw, with a multiple of 4K up to 16M");
  }
  return image;
}

Status writeAll(int fd, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return Error::fromErrno(done < 0 ? errno : EIO, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return {};
}

/// The file appears with its contents or not at all.
Status makeCopy(const std::string& path, std::span<const std::byte> contents) {
  std::string temporary = fmt::format("{}.new.{}", path, ::getpid());
  UniqueFd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file) {
    return Error::fromErrno(errno, "create " + inQuotes(path)).withHint("check the path given to --uefi-vars");
  }
  Status written = writeAll(file.get(), 0, contents);
  if (written && ::link(temporary.c_str(), path.c_str()) != 0 && errno != EEXIST) {
    written = Error::fromErrno(errno, "create " + inQuotes(path));
  }
  ::unlink(temporary.c_str());
  return written;
}
}  // namespace

Result<std::unique_ptr<FlashFile>> FlashFile::open(const FlashConfig& config) {
  auto flash = std::unique_ptr<FlashFile>(new FlashFile());
  bool exists = !config.path.empty() && ::access(config.path.c_str(), F_OK) == 0;
  if (!exists && !config.blank.empty()) {
    auto blank = readImage(config.blank);
    if (!blank) return std::move(blank).error();
    flash->contents_ = std::move(*blank);
    if (!config.path.empty() && config.keep) {
      if (Status made = makeCopy(config.path, flash->contents_); !made) return std::move(made).error();
      exists = true;
    }
  }
  flash->path_ = config.path;
  flash->readOnly_ = config.readOnly;
  bool keeps = exists && config.keep && !config.readOnly;
  if (exists) {
    UniqueFd file(::open(config.path.c_str(), (keeps ? O_RDWR : O_RDONLY) | O_CLOEXEC));
    if (!file) return withHintFor(Error::fromErrno(errno, "open"), config.path);
    if (Status locked = keeps ? lockImage(file.get(), true, config.path) : Status{}; !locked) {
      return withHintFor(std::move(locked).error(), config.path);
    }
    auto image = readImage(config.path);
    if (!image) return std::move(image).error();
    flash->contents_ = std::move(*image);
    if (keeps) flash->file_ = std::move(file);
  } else if (config.blank.empty()) {
    auto image = readImage(config.path);
    if (!image) return std::move(image).error();
    flash->contents_ = std::move(*image);
  }
  flash->bytes_ = flash->contents_.size();
  return flash;
}

void FlashFile::store(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (!file_ || failed_) return;
  Status written = writeAll(file_.get(), offset, bytes);
  if (written) return;
  failed_ = true;
  log(LogLevel::error, "flash image {}: {}; later changes are lost", inQuotes(path_), written.error().message());
}

std::vector<FlashConfig> flashChips(const MachineConfig& config) {
  if (!config.flash.empty() || config.firmware == Firmware::bios) return config.flash;
  std::string folder = kFolder;
  FlashConfig code{.path = folder + (config.secureBoot ? "OVMF_CODE_4M.secboot.fd" : "OVMF_CODE_4M.fd"),
                   .readOnly = true};
  FlashConfig variables{.path = config.uefiVars,
                        .keep = !config.uefiVars.empty(),
                        .blank = folder + (config.secureBoot ? "OVMF_VARS_4M.ms.fd" : "OVMF_VARS_4M.fd")};
  return {code, variables};
}

}  // namespace lodge
