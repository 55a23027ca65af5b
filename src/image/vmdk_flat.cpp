// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "image/io_vector.h"
#include "image/vmdk_extent.h"

namespace lodge::image::vmdk {

namespace {

class FlatExtent final : public Image {
 public:
  FlatExtent(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes, bool readOnly)
      : file_(std::move(file)), offset_(offset), bytes_(bytes), readOnly_(readOnly) {}

  std::uint64_t size() const override { return bytes_; }
  bool readOnly() const override { return readOnly_; }
  int read(std::uint64_t offset, std::span<const iovec> to) override { return file_->readv(offset_ + offset, to); }
  int write(std::uint64_t offset, std::span<const iovec> from) override {
    return readOnly_ ? EROFS : file_->writev(offset_ + offset, from);
  }
  int flush() override { return readOnly_ ? 0 : file_->flush(); }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    return readOnly_ ? EROFS : file_->discard(offset_ + offset, length);
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    return readOnly_ ? EROFS : file_->writeZeroes(offset_ + offset, length, mayUnmap);
  }
  int tryRead(std::uint64_t offset, std::span<const iovec> to) override {
    return file_->tryReadv(offset_ + offset, to);
  }
  int tryWrite(std::uint64_t offset, std::span<const iovec> from) override {
    return readOnly_ ? EAGAIN : file_->tryWritev(offset_ + offset, from);
  }
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override {
    if (offset >= bytes_ || length == 0) return EINVAL;
    std::uint64_t at = offset_ + offset;
    length = std::min(length, bytes_ - offset);
    status = {.length = length, .kind = BlockStatus::Kind::zero};
    if (at >= file_->size()) return 0;
    BlockFile::Extent extent = file_->extent(at, std::min(length, file_->size() - at));
    status.length = extent.length;
    status.hostOffset = at;
    status.file = file_.get();
    status.hole = extent.hole;
    if (!extent.hole) status.kind = BlockStatus::Kind::data;
    return 0;
  }
  Result<ImageInfo> info() override {
    ImageInfo info;
    info.format = "flat";
    info.virtualBytes = bytes_;
    info.allocatedBytes = file_->allocatedBytes();
    return info;
  }
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override {
    auto failed = [&](int error) { return Error::fromErrno(error, "resize " + inQuotes(file_->name())); };
    if (int error = file_->truncate(offset_ + newBytes); error != 0) return failed(error);
    bool room = preallocation == Preallocation::falloc || preallocation == Preallocation::full;
    if (room && newBytes > bytes_) {
      if (int error = reserveRoom(*file_, offset_ + bytes_, newBytes - bytes_, progress()); error != 0)
        return failed(error);
    }
    bytes_ = newBytes;
    return {};
  }
  Result<CheckResult> check(Repair) override {
    CheckResult result;
    result.imageEnd = offset_ + bytes_;
    return result;
  }

 private:
  std::shared_ptr<BlockFile> file_;
  std::uint64_t offset_, bytes_;
  bool readOnly_;
};

class ZeroExtent final : public Image {
 public:
  explicit ZeroExtent(std::uint64_t bytes) : bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_; }
  bool readOnly() const override { return true; }
  int read(std::uint64_t, std::span<const iovec> to) override {
    fillZero(to);
    return 0;
  }
  int write(std::uint64_t, std::span<const iovec>) override { return EROFS; }
  int flush() override { return 0; }
  int discard(std::uint64_t, std::uint64_t) override { return 0; }
  int writeZeroes(std::uint64_t, std::uint64_t, bool) override { return 0; }
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override {
    if (offset >= bytes_ || length == 0) return EINVAL;
    status = {.length = std::min(length, bytes_ - offset), .kind = BlockStatus::Kind::zero};
    return 0;
  }
  Result<ImageInfo> info() override { return ImageInfo{}; }
  Result<CheckResult> check(Repair) override { return CheckResult{}; }

 private:
  std::uint64_t bytes_;
};

}  // namespace

std::unique_ptr<Image> makeFlatExtent(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes,
                                      bool readOnly) {
  return std::make_unique<FlatExtent>(std::move(file), offset, bytes, readOnly);
}

std::unique_ptr<Image> makeZeroExtent(std::uint64_t bytes) {
  return std::make_unique<ZeroExtent>(bytes);
}

}  // namespace lodge::image::vmdk
