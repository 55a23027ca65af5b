// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "base/units.h"
#include "image/drivers.h"

namespace lodge::image {

namespace {

constexpr std::uint64_t kSector = 512;

/// A regular file or a block device whose bytes are the disk's. A file that does not end on a sector is rounded up;
/// what lies beyond its end reads as zero.
class RawImage : public Image {
 public:
  explicit RawImage(std::shared_ptr<BlockFile> file) : file_(std::move(file)) {
    size_ = alignUp(file_->size(), kSector);
  }

  std::uint64_t size() const override { return size_; }
  bool readOnly() const override { return file_->readOnly(); }
  int read(std::uint64_t offset, std::span<const iovec> to) override { return file_->readv(offset, to); }
  int write(std::uint64_t offset, std::span<const iovec> from) override { return file_->writev(offset, from); }
  int tryRead(std::uint64_t offset, std::span<const iovec> to) override { return file_->tryReadv(offset, to); }
  int tryWrite(std::uint64_t offset, std::span<const iovec> from) override { return file_->tryWritev(offset, from); }
  bool lend(std::uint64_t offset, std::span<const iovec> vectors, bool writing, Loan& loan) override {
    if (writing && readOnly()) return false;
    loan.fd = file_->descriptor(offset, vectors, loan.direct);
    loan.offset = offset;
    return loan.fd >= 0;
  }
  int flush() override { return file_->flush(); }
  int discard(std::uint64_t offset, std::uint64_t length) override { return file_->discard(offset, length); }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    return file_->writeZeroes(offset, length, mayUnmap);
  }

  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override {
    std::uint64_t end = file_->size();
    if (offset >= end) {
      status = {.length = length, .kind = BlockStatus::Kind::zero, .hostOffset = offset, .file = file_.get()};
      return 0;
    }
    BlockFile::Extent extent = file_->extent(offset, std::min(length, end - offset));
    status = {.length = extent.length,
              .kind = extent.hole ? BlockStatus::Kind::zero : BlockStatus::Kind::data,
              .hostOffset = offset,
              .file = file_.get()};
    return 0;
  }

  Result<ImageInfo> info() override {
    ImageInfo info;
    info.format = "raw";
    info.virtualBytes = size_;
    info.allocatedBytes = file_->allocatedBytes();
    return info;
  }

  Status resize(std::uint64_t newBytes, Preallocation preallocation) override {
    std::uint64_t old = size_;
    int error = file_->truncate(newBytes);
    if (file_->size() != newBytes && (error == 0 || error == ENOSPC))
      return Error(ErrorKind::unsupported, fmt::format("resize {}: it keeps its size of {}", inQuotes(file_->name()),
                                                       formatSize(file_->size())))
          .withHint("resize what the NBD server exports, or the device, where it is");
    if (error == 0 && newBytes > old && preallocation >= Preallocation::falloc)
      error = reserveRoom(*file_, old, newBytes - old, progress());
    if (error != 0) return Error::fromErrno(error, "resize " + inQuotes(file_->name()));
    size_ = newBytes;
    return {};
  }

 private:
  std::shared_ptr<BlockFile> file_;
  std::uint64_t size_;
};

Result<std::unique_ptr<Image>> open(const OpenContext& context) {
  return std::unique_ptr<Image>(std::make_unique<RawImage>(context.file));
}

Status create(const CreateRequest& request) {
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  int error = (*file)->truncate(request.bytes);
  if (error == 0 && request.preallocation >= Preallocation::falloc)
    error = reserveRoom(**file, 0, request.bytes, request.progress);
  if (error != 0) return Error::fromErrno(error, "size it");
  return {};
}

}  // namespace

const FormatDriver& rawDriver() {
  static const FormatDriver driver = {
      .name = "raw",
      .summary = "the disk's bytes as they are, with holes",
      .suffixes = {"raw", "img", "iso", "bin", "dd"},
      .open = open,
      .create = create,
      .options = {{"preallocation", "off|falloc|full", "off", "Reserve the disk's room at once."}},
  };
  return driver;
}

}  // namespace lodge::image
