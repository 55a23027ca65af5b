// SPDX-License-Identifier: Apache-2.0
// Compressed clusters, written one after the other.
#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

class Qcow2StreamWriter : public StreamWriter {
 public:
  explicit Qcow2StreamWriter(Qcow2Image& image) : image_(image) {}

  std::uint64_t unitBytes() const override { return image_.cluster(); }
  int encode(std::span<const std::byte> unit, std::vector<std::byte>& encoded) const override {
    encoded.clear();
    // The decoder expects a whole cluster.
    if (unit.size() == image_.cluster()) return compress(image_.header_.compression, unit, encoded);
    std::vector<std::byte> whole(image_.cluster());
    std::copy(unit.begin(), unit.end(), whole.begin());
    return compress(image_.header_.compression, whole, encoded);
  }
  int put(std::uint64_t offset, std::span<const std::byte> unit, std::span<const std::byte> encoded) override {
    if (encoded.empty()) {
      iovec v{const_cast<std::byte*>(unit.data()), unit.size()};
      return image_.write(offset, {&v, 1});
    }
    if (int error = image_.noteChange(offset, unit.size()); error != 0) return error;
    for (;;) {
      std::uint64_t host = 0;
      int error = place(offset, encoded.size(), host);
      if (error == EAGAIN) error = image_.flushMetadata();
      if (error != 0) return error;
      if (host == 0) continue;
      if (int failed = buffer(host, encoded); failed != 0) return failed;
      return image_.relieve();
    }
  }
  int finish() override {
    if (int error = writeOut(); error != 0) return error;
    // Readers take whole sectors.
    std::uint64_t end = image_.clusterUp(image_.file_->size());
    return image_.file_->size() < end ? image_.file_->truncate(end) : 0;
  }

 private:
  static constexpr std::size_t kBufferBytes = 1u << 20;

  /// Finds room for the bytes, counts it, and maps the cluster to it.
  int place(std::uint64_t offset, std::size_t bytes, std::uint64_t& host) {
    std::unique_lock lock(image_.mutex_);
    if (int error = image_.ownL2(offset); error != 0) return error;
    L2Entry old;
    if (int error = image_.loadEntry(offset, old); error != 0) return error;
    std::uint64_t at = 0;
    if (int error = reserve(bytes, at); error != 0) return error;
    unsigned offsetBits = 62 - (image_.header_.clusterBits - 8);
    if (at + bytes > std::uint64_t{1} << offsetBits) return EFBIG;
    std::uint64_t sectors = (at + bytes - 1) / 512 - at / 512;
    if (int error = image_.setEntry(offset, {entry::compressed | sectors << offsetBits | at, 0}); error != 0)
      return error;
    image_.freeEntry(old);
    next_ = at + bytes;
    host = at;
    return 0;
  }

  int reserve(std::size_t bytes, std::uint64_t& at) {
    std::uint64_t cluster = image_.cluster(), left = next_ % cluster == 0 ? 0 : cluster - next_ % cluster, count = 0;
    if (left != 0) {
      if (int error = image_.refcount(next_ / cluster, count); error != 0) return error;
      if (count == image_.maxRefcount()) left = 0;
    }
    if (left >= bytes) {
      at = next_;
      return image_.addRefcount(at, 1, 1);
    }
    std::uint64_t fresh = 0, got = 0;
    if (int error = image_.allocate(1, fresh, got); error != 0) return error;
    bool follows = left != 0 && fresh == next_ + left;
    at = follows ? next_ : fresh;
    return follows ? image_.addRefcount(at, 1, 1) : 0;
  }

  int buffer(std::uint64_t host, std::span<const std::byte> bytes) {
    if (host != start_ + buffered_.size() || buffered_.size() > kBufferBytes) {
      if (int error = writeOut(); error != 0) return error;
    }
    if (buffered_.empty()) start_ = host;
    buffered_.insert(buffered_.end(), bytes.begin(), bytes.end());
    return 0;
  }
  int writeOut() {
    int error = buffered_.empty() ? 0 : image_.file_->write(start_, buffered_.data(), buffered_.size());
    buffered_.clear();
    return error;
  }

  Qcow2Image& image_;
  std::uint64_t next_ = 0;  // where the next bytes go if they fit; at a cluster's start: nowhere
  std::uint64_t start_ = 0;
  std::vector<std::byte> buffered_;
};

Result<std::unique_ptr<StreamWriter>> Qcow2Image::streamWriter() {
  if (readOnly_) return Error(ErrorKind::permissionDenied, "open read-only");
  if (dataFile_) return Error(ErrorKind::unsupported, "an image with an external data file has no compressed clusters");
  return std::unique_ptr<StreamWriter>(std::make_unique<Qcow2StreamWriter>(*this));
}

}  // namespace lodge::image::qcow2
