// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the fuzz drivers of image formats share: the input as a file in memory, and everything that is done to images.

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "image/format.h"
#include "image/vectors.h"

namespace lodge::image {

/// Every name leads to the one file, or to nothing.
class FuzzFiles final : public FileSpace {
 public:
  explicit FuzzFiles(std::shared_ptr<BlockFile> file) : file_(std::move(file)) {}
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode&) override {
    if (path == "image" || path.find("self") != std::string::npos) return file_;
    return Error(ErrorKind::notFound, "no such file");
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string&, bool) override {
    return Error(ErrorKind::permissionDenied, "no new files");
  }
  Result<std::string> canonical(const std::string& path) override { return "/" + path; }

 private:
  std::shared_ptr<BlockFile> file_;
};

inline void exercise(Image& image) {
  std::vector<std::byte> buffer(200'000);
  std::uint64_t size = image.size();
  (void)image.info();
  for (std::uint64_t at : {std::uint64_t{0}, size / 3, size / 2 + 511, size - 1}) {
    iovec v{buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size - at))};
    (void)image.read(at, {&v, 1});
  }
  BlockStatus status;
  std::uint64_t at = 0;
  for (int i = 0; i < 100 && at < size && image.blockStatus(at, size - at, status) == 0; ++i) at += status.length;
  if (!image.readOnly()) {
    for (std::uint64_t where : {std::uint64_t{700}, size / 2}) {
      if (where >= size) continue;
      iovec v{buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(70'000, size - where))};
      (void)image.write(where, {&v, 1});
      (void)image.writeZeroes(where, v.iov_len / 2, true);
    }
    (void)image.flush();
    (void)image.resize(size + 1'048'576, Preallocation::off);
    (void)image.check(Repair::all);
  }
  (void)image.check(Repair::none);
}

/// A file in memory with that content, which has no pages where that is zero: most of the time would go into those.
inline std::shared_ptr<BlockFile> fuzzFile(std::span<const std::byte> bytes, std::uint64_t fileBytes) {
  constexpr std::size_t kPage = 4096;
  auto file = makeMemoryFile("image", {}, fileBytes + (64 << 20));
  for (std::size_t at = 0; at < bytes.size(); at += kPage) {
    auto page = bytes.subspan(at, std::min(kPage, bytes.size() - at));
    if (!isZero(page.data(), page.size())) (void)file->write(at, page.data(), page.size());
  }
  (void)file->truncate(fileBytes);
  return file;
}

/// Opens the file as an image of that format, for reading and for writing.
inline void fuzzImage(const FormatDriver& driver, const std::vector<std::byte>& bytes, std::uint64_t fileBytes) {
  setLogLevel(LogLevel::error);
  setLogFile(-1);
  for (bool readOnly : {true, false}) {
    auto file = fuzzFile(bytes, std::max<std::uint64_t>(bytes.size(), fileBytes));
    FuzzFiles files(file);
    OpenContext context{"image", file, {}, &files, {"/image"}};
    context.options.file.readOnly = readOnly;
    for (bool backing : {true, false}) {
      context.options.openBacking = backing;
      auto image = driver.open(context);
      if (image) {
        exercise(**image);
        break;
      }
    }
  }
}

}  // namespace lodge::image
