// SPDX-License-Identifier: Apache-2.0
#include "image/image.h"

#include <algorithm>
#include <cerrno>

#include "base/text.h"

namespace lodge::image {

int reserveRoom(BlockFile& file, std::uint64_t offset, std::uint64_t length, const Progress& progress) {
  constexpr std::uint64_t kStep = 256 << 20;
  for (std::uint64_t done = 0; done < length;) {
    std::uint64_t step = std::min(kStep, length - done);
    if (int error = file.writeZeroes(offset + done, step, false); error != 0) return error;
    done += step;
    if (progress && !progress(done, length)) return EINTR;
  }
  return 0;
}

Error Image::lacks(std::string_view what) {
  auto about = info();
  return Error(ErrorKind::unsupported,
               fmt::format("{} images have no {}", about ? about->format : std::string("these"), what));
}

Status Image::resize(std::uint64_t, Preallocation) {
  return lacks("way to be resized");
}
Result<CheckResult> Image::check(Repair) {
  return lacks("metadata that can be checked");
}
Status Image::createSnapshot(const std::string&) {
  return lacks("internal snapshots");
}
Status Image::applySnapshot(const std::string&) {
  return lacks("internal snapshots");
}
Status Image::deleteSnapshot(const std::string&) {
  return lacks("internal snapshots");
}
Status Image::changeBacking(const std::string&, const std::string&) {
  return lacks("backing image that could be changed");
}
Status Image::makeEmpty() {
  return lacks("way to be emptied");
}
Result<std::unique_ptr<StreamWriter>> Image::streamWriter() {
  return lacks("compressed or streamed form");
}

int chainStatus(Image& image, std::uint64_t offset, std::uint64_t length, BlockStatus& status) {
  for (Image* layer = &image;;) {
    if (int error = layer->blockStatus(offset, length, status); error != 0) return error;
    if (status.kind != BlockStatus::Kind::unallocated) return 0;
    length = status.length;
    layer = layer->backing();
    if (!layer || offset >= layer->size()) {
      status = {.length = length, .kind = BlockStatus::Kind::zero};
      return 0;
    }
    length = std::min(length, layer->size() - offset);
  }
}

}  // namespace lodge::image
