// SPDX-License-Identifier: Apache-2.0
// Several disks one after the other.
#include <algorithm>
#include <cerrno>

#include "image/convert.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

class JoinedImage final : public Image {
 public:
  explicit JoinedImage(std::vector<std::unique_ptr<Image>> images) {
    for (auto& image : images) {
      std::uint64_t bytes = image->size();
      if (bytes != 0) parts_.push_back({size_, std::move(image)});
      size_ += bytes;
    }
  }

  std::uint64_t size() const override { return size_; }
  bool readOnly() const override { return true; }
  int read(std::uint64_t offset, std::span<const iovec> to) override {
    VectorCursor cursor(to);
    for (std::uint64_t left = totalBytes(to); left != 0;) {
      if (offset >= size_) return EINVAL;
      const Part& part = partAt(offset);
      std::uint64_t within = offset - part.begin, length = std::min(left, part.image->size() - within);
      if (int error = part.image->read(within, cursor.take(length)); error != 0) return error;
      offset += length;
      left -= length;
    }
    return 0;
  }
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override {
    if (offset >= size_ || length == 0) return EINVAL;
    const Part& part = partAt(offset);
    std::uint64_t within = offset - part.begin;
    return chainStatus(*part.image, within, std::min(length, part.image->size() - within), status);
  }
  int write(std::uint64_t, std::span<const iovec>) override { return EROFS; }
  int flush() override { return 0; }
  int discard(std::uint64_t, std::uint64_t) override { return EROFS; }
  int writeZeroes(std::uint64_t, std::uint64_t, bool) override { return EROFS; }
  Result<ImageInfo> info() override {
    ImageInfo info;
    info.format = "joined";
    info.virtualBytes = size_;
    return info;
  }

 private:
  struct Part {
    std::uint64_t begin;
    std::unique_ptr<Image> image;
  };
  const Part& partAt(std::uint64_t offset) const {
    auto after = std::upper_bound(parts_.begin(), parts_.end(), offset,
                                  [](std::uint64_t at, const Part& part) { return at < part.begin; });
    return *std::prev(after);
  }

  std::vector<Part> parts_;
  std::uint64_t size_ = 0;
};

}  // namespace

std::unique_ptr<Image> joinImages(std::vector<std::unique_ptr<Image>> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  return std::make_unique<JoinedImage>(std::move(parts));
}

}  // namespace lodge::image
