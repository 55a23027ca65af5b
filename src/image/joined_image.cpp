// SPDX-License-Identifier: Apache-2.0
// Several disks one after the other, and parts of disks.
#include <algorithm>
#include <cerrno>

#include "image/convert.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

class JoinedImage final : public Image {
 public:
  JoinedImage() = default;
  void add(std::unique_ptr<Image> image, std::uint64_t from, std::uint64_t bytes) {
    if (bytes == 0) return;
    parts_.push_back({size_, bytes, from, std::move(image)});
    size_ += bytes;
  }

  std::uint64_t size() const override { return size_; }
  bool readOnly() const override { return true; }
  int read(std::uint64_t offset, std::span<const iovec> to) override {
    VectorCursor cursor(to);
    for (std::uint64_t left = totalBytes(to); left != 0;) {
      if (offset >= size_) return EINVAL;
      const Part& part = partAt(offset);
      std::uint64_t within = offset - part.begin, length = std::min(left, part.bytes - within);
      if (int error = part.image->read(part.from + within, cursor.take(length)); error != 0) return error;
      offset += length;
      left -= length;
    }
    return 0;
  }
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override {
    if (offset >= size_ || length == 0) return EINVAL;
    const Part& part = partAt(offset);
    std::uint64_t within = offset - part.begin;
    return chainStatus(*part.image, part.from + within, std::min(length, part.bytes - within), status);
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
    std::uint64_t begin, bytes;  // here
    std::uint64_t from;          // there
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
  auto joined = std::make_unique<JoinedImage>();
  for (auto& part : parts) {
    std::uint64_t bytes = part->size();
    joined->add(std::move(part), 0, bytes);
  }
  return joined;
}

std::unique_ptr<Image> partOfImage(std::unique_ptr<Image> image, std::uint64_t from, std::uint64_t bytes) {
  std::uint64_t size = image->size();
  from = std::min(from, size);
  auto part = std::make_unique<JoinedImage>();
  part->add(std::move(image), from, std::min(bytes, size - from));
  return part;
}

}  // namespace lodge::image
