// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "image/block_file.h"

namespace lodge::image {

namespace {

class MemoryFile : public BlockFile {
 public:
  static constexpr std::uint64_t kPage = 4096;
  using Page = std::array<std::byte, kPage>;

  MemoryFile(std::string name, std::uint64_t limit) : name_(std::move(name)), limit_(limit) {}

  const std::string& name() const override { return name_; }
  bool readOnly() const override { return false; }
  std::uint64_t size() const override {
    std::shared_lock lock(mutex_);
    return size_;
  }
  std::uint64_t allocatedBytes() const override {
    std::shared_lock lock(mutex_);
    return pages_.size() * kPage;
  }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    std::shared_lock lock(mutex_);
    forPieces(offset, to, [&](std::uint64_t page, std::size_t inside, std::byte* bytes, std::size_t n) {
      auto it = pages_.find(page);
      if (it == pages_.end())
        std::memset(bytes, 0, n);
      else
        std::memcpy(bytes, it->second->data() + inside, n);
    });
    return 0;
  }
  int writev(std::uint64_t offset, std::span<const iovec> from) override {
    std::uint64_t length = 0;
    for (const iovec& v : from) length += v.iov_len;
    if (offset > limit_ || length > limit_ - offset) return EFBIG;
    std::unique_lock lock(mutex_);
    forPieces(offset, from, [&](std::uint64_t page, std::size_t inside, const std::byte* bytes, std::size_t n) {
      auto& slot = pages_[page];
      if (!slot) slot = std::make_unique<Page>();
      std::memcpy(slot->data() + inside, bytes, n);
    });
    size_ = std::max(size_, offset + length);
    return 0;
  }
  int flush() override { return 0; }
  int truncate(std::uint64_t bytes) override {
    if (bytes > limit_) return EFBIG;
    std::unique_lock lock(mutex_);
    if (bytes < size_) clear(bytes, size_ - bytes);
    size_ = bytes;
    return 0;
  }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    std::unique_lock lock(mutex_);
    if (offset < size_) clear(offset, std::min(length, size_ - offset));
    return 0;
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool) override {
    if (offset > limit_ || length > limit_ - offset) return EFBIG;
    std::unique_lock lock(mutex_);
    clear(offset, length);
    size_ = std::max(size_, offset + length);
    return 0;
  }
  Extent extent(std::uint64_t offset, std::uint64_t length) override {
    std::shared_lock lock(mutex_);
    auto it = pages_.lower_bound(offset / kPage);
    if (it == pages_.end()) return {length, true};
    if (it->first * kPage > offset) return {std::min(length, it->first * kPage - offset), true};
    std::uint64_t page = offset / kPage;
    for (; it != pages_.end() && it->first == page && page * kPage < offset + length; ++it) ++page;
    return {std::min(length, page * kPage - offset), false};
  }

 private:
  template <class F>
  static void forPieces(std::uint64_t offset, std::span<const iovec> vectors, F&& piece) {
    for (const iovec& v : vectors) {
      auto* bytes = static_cast<std::byte*>(v.iov_base);
      for (std::size_t left = v.iov_len; left != 0;) {
        std::size_t inside = offset % kPage, n = std::min<std::size_t>(left, kPage - inside);
        piece(offset / kPage, inside, bytes, n);
        offset += n;
        bytes += n;
        left -= n;
      }
    }
  }
  /// Only pages that exist are visited, so that the range may be huge.
  void clear(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t end = offset + length;
    for (auto it = pages_.lower_bound(offset / kPage); it != pages_.end() && it->first * kPage < end;) {
      std::uint64_t from = std::max(offset, it->first * kPage), to = std::min(end, (it->first + 1) * kPage);
      if (to - from == kPage) {
        it = pages_.erase(it);
      } else {
        std::memset(it->second->data() + from % kPage, 0, to - from);
        ++it;
      }
    }
  }

  std::string name_;
  std::uint64_t limit_, size_ = 0;
  mutable std::shared_mutex mutex_;
  std::map<std::uint64_t, std::unique_ptr<Page>> pages_;
};

class MemoryFiles : public FileSpace {
 public:
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode&) override {
    std::lock_guard lock(mutex_);
    auto it = files_.find(path);
    if (it == files_.end()) return Error(ErrorKind::notFound, "open '" + path + "': not in memory");
    return it->second;
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool replace) override {
    std::lock_guard lock(mutex_);
    auto& file = files_[path];
    if (file && !replace) return Error(ErrorKind::alreadyExists, "create '" + path + "': exists");
    file = makeMemoryFile(path);
    return file;
  }
  Result<std::string> canonical(const std::string& path) override {
    std::string text = path;
    while (text.starts_with("./")) text.erase(0, 2);
    if (text == ".") text = "";
    if (!text.starts_with("/")) text = "/" + text;
    return text.find("/../") == std::string::npos
               ? Result<std::string>(text)
               : Error(ErrorKind::notFound, "find '" + path + "': memory has no folders");
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<BlockFile>> files_;
};

}  // namespace

std::shared_ptr<BlockFile> makeMemoryFile(std::string name, std::span<const std::byte> content, std::uint64_t limit) {
  auto file = std::make_shared<MemoryFile>(std::move(name), limit);
  if (!content.empty()) file->write(0, content.data(), content.size());
  return file;
}

std::unique_ptr<FileSpace> makeMemoryFiles() {
  return std::make_unique<MemoryFiles>();
}

}  // namespace lodge::image
