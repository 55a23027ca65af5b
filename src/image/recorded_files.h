// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests: a set of files in memory that keeps every write since it was made, so that a power loss can be played.

#include <fmt/format.h>

#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "base/text.h"
#include "image/block_file.h"
#include "image/io_vector.h"

namespace lodge::image {

class RecordedFiles : public FileSpace {
 public:
  enum class Kind : std::uint8_t { write, zero, truncate, flush };
  struct Event {
    Kind kind;
    std::string file;
    std::uint64_t offset = 0, length = 0;
    std::vector<std::byte> bytes{};
  };

  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) override {
    auto found = files_.find(path);
    if (found == files_.end()) return Error(ErrorKind::notFound, "open " + inQuotes(path) + ": no such file");
    return std::shared_ptr<BlockFile>(std::make_shared<Recorder>(*this, found->second, mode.readOnly));
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override {
    files_[path] = makeMemoryFile(path);
    std::lock_guard held(mutex_);
    events_.push_back({Kind::truncate, path});
    return std::shared_ptr<BlockFile>(std::make_shared<Recorder>(*this, files_[path], false));
  }
  Result<std::string> canonical(const std::string& path) override {
    std::string name = path.starts_with("./") ? path.substr(2) : path;
    if (name == "." || files_.count(name) != 0) return "/memory/" + (name == "." ? "" : name);
    return Error(ErrorKind::notFound, inQuotes(path) + ": no such file");
  }

  const std::vector<Event>& events() const { return events_; }
  BlockFile& file(const std::string& path) { return *files_.at(path); }
  void add(const std::string& path, std::span<const std::byte> content) {
    files_[path] = makeMemoryFile(path, content);
  }

  /// What may be on the disk if power fails before event `cut`: everything before the last flush, and of what came
  /// after it any sectors. (File sizes are kept in order, as journalling file systems do.)
  std::unique_ptr<RecordedFiles> afterPowerLoss(std::size_t cut, std::mt19937_64& random) const {
    auto left = std::make_unique<RecordedFiles>();
    std::size_t safe = 0;
    for (std::size_t i = 0; i < cut; ++i) {
      if (events_[i].kind == Kind::flush) safe = i;
    }
    for (std::size_t i = 0; i < cut; ++i) left->replay(events_[i], i < safe ? nullptr : &random);
    return left;
  }

 private:
  class Recorder : public BlockFile {
   public:
    Recorder(RecordedFiles& space, std::shared_ptr<BlockFile> file, bool readOnly)
        : space_(space), file_(std::move(file)), readOnly_(readOnly) {}
    const std::string& name() const override { return file_->name(); }
    bool readOnly() const override { return readOnly_; }
    std::uint64_t size() const override { return file_->size(); }
    std::uint64_t allocatedBytes() const override { return file_->allocatedBytes(); }
    int readv(std::uint64_t offset, std::span<const iovec> to) override { return file_->readv(offset, to); }
    int writev(std::uint64_t offset, std::span<const iovec> from) override {
      if (readOnly_) return EROFS;
      std::vector<std::byte> bytes;
      for (const iovec& v : from) {
        auto* at = static_cast<const std::byte*>(v.iov_base);
        bytes.insert(bytes.end(), at, at + v.iov_len);
      }
      space_.record({Kind::write, name(), offset, bytes.size(), bytes});
      return file_->writev(offset, from);
    }
    int flush() override {
      space_.record({Kind::flush, name()});
      return 0;
    }
    int truncate(std::uint64_t bytes) override {
      if (readOnly_) return EROFS;
      space_.record({Kind::truncate, name(), bytes});
      return file_->truncate(bytes);
    }
    int discard(std::uint64_t offset, std::uint64_t length) override { return zero(offset, length); }
    int writeZeroes(std::uint64_t offset, std::uint64_t length, bool) override { return zero(offset, length); }
    Extent extent(std::uint64_t offset, std::uint64_t length) override { return file_->extent(offset, length); }

   private:
    int zero(std::uint64_t offset, std::uint64_t length) {
      if (readOnly_) return EROFS;
      space_.record({Kind::zero, name(), offset, length});
      return file_->writeZeroes(offset, length, true);
    }
    RecordedFiles& space_;
    std::shared_ptr<BlockFile> file_;
    bool readOnly_;
  };

  void record(Event event) {
    std::lock_guard held(mutex_);
    events_.push_back(std::move(event));
  }

  void replay(const Event& event, std::mt19937_64* random) {
    auto& file = files_[event.file];
    if (!file) file = makeMemoryFile(event.file);
    if (event.kind == Kind::truncate) (void)file->truncate(event.offset);
    if (event.kind == Kind::zero && (!random || (*random)() % 2 == 0)) {
      (void)file->writeZeroes(event.offset, event.length, true);
    }
    if (event.kind != Kind::write) return;
    std::uint64_t end = event.offset + event.length;
    if (end > file->size()) (void)file->truncate(end);
    bool most = random && (*random)() % 2 == 0;
    for (std::uint64_t at = event.offset; at < end;) {
      std::uint64_t part = random ? std::min(end, (at / 512 + 1) * 512) - at : end - at;
      if (!random || ((*random)() % 8 != 0) == most)
        (void)file->write(at, event.bytes.data() + (at - event.offset), part);
      at += part;
    }
  }

  std::map<std::string, std::shared_ptr<BlockFile>> files_;
  std::mutex mutex_;
  std::vector<Event> events_;
};

}  // namespace lodge::image
