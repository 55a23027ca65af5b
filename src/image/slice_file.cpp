// SPDX-License-Identifier: Apache-2.0
#include "image/slice_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "image/io_vector.h"

namespace lodge::image {

namespace {

class Slice final : public BlockFile {
 public:
  Slice(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes, std::string name, bool readOnly)
      : file_(std::move(file)), offset_(offset), bytes_(bytes), name_(std::move(name)), readOnly_(readOnly) {}

  const std::string& name() const override { return name_; }
  bool readOnly() const override { return readOnly_; }
  std::uint64_t size() const override { return bytes_; }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    std::uint64_t wanted = bytesIn(to), end = bytes_;
    if (offset + wanted <= end) return file_->readv(offset_ + offset, to);
    IoCursor cursor(to);
    std::uint64_t there = offset < end ? end - offset : 0;
    if (there != 0) {
      if (int error = file_->readv(offset_ + offset, cursor.take(there)); error != 0) return error;
    }
    fillZero(cursor.take(wanted - there));
    return 0;
  }
  int writev(std::uint64_t offset, std::span<const iovec> from) override {
    if (readOnly_) return EROFS;
    grow(offset + bytesIn(from));
    return file_->writev(offset_ + offset, from);
  }
  int flush() override { return readOnly_ ? 0 : file_->flush(); }
  int truncate(std::uint64_t bytes) override {
    if (readOnly_) return EROFS;
    bytes_ = bytes;
    return file_->truncate(offset_ + bytes);
  }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    return readOnly_ ? EROFS : file_->discard(offset_ + offset, length);
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    if (readOnly_) return EROFS;
    grow(offset + length);
    return file_->writeZeroes(offset_ + offset, length, mayUnmap);
  }
  Extent extent(std::uint64_t offset, std::uint64_t length) override {
    return file_->extent(offset_ + offset, std::min(length, bytes_ - offset));
  }

 private:
  void grow(std::uint64_t end) {
    std::uint64_t now = bytes_;
    while (now < end && !bytes_.compare_exchange_weak(now, end)) {
    }
  }

  std::shared_ptr<BlockFile> file_;
  std::uint64_t offset_;
  std::atomic<std::uint64_t> bytes_;
  std::string name_;
  bool readOnly_;
};

}  // namespace

std::shared_ptr<BlockFile> makeSlice(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes,
                                     std::string name) {
  return std::make_shared<Slice>(std::move(file), offset, bytes, std::move(name), true);
}

std::shared_ptr<BlockFile> makeTailSlice(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::string name) {
  return std::make_shared<Slice>(std::move(file), offset, 0, std::move(name), false);
}

}  // namespace lodge::image
