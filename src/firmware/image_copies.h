// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "firmware/image_file.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

/// Parts of files that are to be copied to guest RAM: on a thread of its own while the rest of a machine is made, and
/// by whoever waits for the end. Add, begin, finish; files and memory must live until then.
///
///     ImageCopies copies;
///     copies.add(*kernel, offset, length, memory, base);
///     copies.begin();
///     ...
///     if (Status done = copies.finish(); !done) return done;
class ImageCopies {
 public:
  ImageCopies() = default;
  ~ImageCopies();
  ImageCopies(const ImageCopies&) = delete;
  ImageCopies& operator=(const ImageCopies&) = delete;

  /// As ImageFile::load(), whose errors finish() returns.
  void add(const ImageFile& file, std::uint64_t offset, std::uint64_t length, GuestMemory& memory, Gpa to);
  void begin();
  /// Copies what nobody has begun and waits for the rest. Nothing is left to do then. Errors: as ImageFile::load().
  Status finish();

 private:
  struct Piece {
    const ImageFile* file;
    std::uint64_t offset, length;
    GuestMemory* memory;
    Gpa to;
  };
  Status copyPieces();

  std::vector<Piece> pieces_;
  std::atomic<std::size_t> next_{0};
  std::thread thread_;
  Status byThread_;
};

}  // namespace lodge::firmware
