// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "image/qcow2_header.h"

namespace lodge::image::qcow2 {

class Qcow2Image;

/// Keeps the persistent dirty bitmaps of an image right while it is written: those that are to record every change.
/// Before the first change they are marked as in use, so that a reader knows after a crash that they say too little;
/// closing the image stores them and takes the mark away. Pages of a bitmap (one cluster each) are in memory from their
/// first change on, as many as fit into a fixed amount.
class BitmapKeeper {
 public:
  /// nullptr: there is none to keep. Errors: corrupt, unsupported (a bitmap that cannot be kept, by its name), io.
  static Result<std::unique_ptr<BitmapKeeper>> open(Qcow2Image& image, BlockFile& file, const Header& header);
  /// Of that one alone, whatever its flags. Errors: corrupt, io.
  static Result<std::unique_ptr<BitmapKeeper>> only(Qcow2Image& image, BlockFile& file, const Header& header,
                                                    Bitmap bitmap);

  /// The range of the disk gets other content, perhaps. Any thread; the image's lock is not held.
  int mark(std::uint64_t offset, std::uint64_t length);
  /// Everything to the file, no mark of use any more. Once, at the end.
  int store();

 private:
  static constexpr std::uint64_t kMaxPageBytes = 16u << 20;

  struct Kept {
    Bitmap about;
    std::vector<std::uint64_t> table;  ///< native byte order
    std::map<std::uint64_t, std::vector<std::uint8_t>> pages;
  };
  BitmapKeeper(Qcow2Image& image, BlockFile& file, std::uint64_t cluster)
      : image_(image), file_(file), cluster_(cluster) {}

  Status take(const Header& header, Bitmap bitmap);
  int setInUse(bool inUse);
  int markIn(Kept& bitmap, std::uint64_t offset, std::uint64_t length);
  int loadPage(Kept& bitmap, std::uint64_t index, std::vector<std::uint8_t>*& page);
  int writePages();

  Qcow2Image& image_;
  BlockFile& file_;
  std::uint64_t cluster_;
  std::mutex mutex_;
  std::vector<Kept> bitmaps_;
  std::uint64_t pageBytes_ = 0;
  bool begun_ = false;
};

}  // namespace lodge::image::qcow2
