// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

#include "image/image.h"

namespace lodge::image {

/// Memory for a piece of a disk; page-aligned, so that direct input and output can use it.
class PieceBuffer {
 public:
  explicit PieceBuffer(std::size_t bytes) : bytes_(static_cast<std::byte*>(::operator new(bytes, kAlign))) {}
  ~PieceBuffer() { ::operator delete(bytes_, kAlign); }
  PieceBuffer(const PieceBuffer&) = delete;
  PieceBuffer& operator=(const PieceBuffer&) = delete;
  std::byte* data() const { return bytes_; }

 private:
  static constexpr std::align_val_t kAlign{4096};
  std::byte* bytes_;
};

/// Copies a disk in pieces on several threads. Each thread reads a piece, or writes one that was read, whatever is due:
/// as many write at a time as gains anything, and the others read ahead meanwhile. So no thread waits for another that
/// is at work, nor for one that the host has put aside.
class CopyPipe {
 public:
  struct Shape {
    unsigned threads = 1;
    unsigned writers = 0;  ///< how many of them may write at a time; 0: all
    bool ordered = false;  ///< pieces are written in ascending order; then there is one writer
    std::uint64_t pieceBytes = 0;
    std::uint64_t totalBytes = 0;
  };

  virtual ~CopyPipe() = default;
  CopyPipe(const CopyPipe&) = delete;
  CopyPipe& operator=(const CopyPipe&) = delete;

  /// Errors: io (naming the place), interrupted (progress said so).
  Status run();

 protected:
  struct Piece {
    std::uint64_t offset = 0, length = 0;  ///< bytes; at most pieceBytes, or more if `zero`
    bool zero = false;                     ///< known without reading
  };
  /// A stretch of a piece: zeroes, or bytes that may have an encoded form. Relative to the piece.
  struct Part {
    std::uint64_t begin = 0, end = 0;
    bool blank = false;
    std::vector<std::byte> encoded{};
  };
  struct Slot {
    explicit Slot(std::uint64_t bytes) : buffer(bytes) {}
    Piece piece{};
    PieceBuffer buffer;
    std::vector<Part> parts{};
    std::uint64_t turn = 0;
  };

  CopyPipe(const Shape& shape, Progress progress) : shape_(shape), progress_(std::move(progress)) {}

  /// The next piece that is to be copied; false at the end. One thread at a time.
  virtual Result<bool> next(Piece& piece) = 0;
  /// Reads the slot's piece; any number of threads at once. errno-style, as is write().
  virtual int fill(Slot& slot) = 0;
  virtual int write(Slot& slot) = 0;
  /// For next(): bytes that need no copy.
  void skip(std::uint64_t bytes) { done_ += bytes; }
  /// For fill(): guards what the threads share besides.
  std::mutex& shared() { return sharedMutex_; }

 private:
  void work();
  Slot* takeReady();
  Slot* takeFree();
  void fail(Error error);

  const Shape shape_;
  Progress progress_;
  std::mutex mutex_, sharedMutex_;
  std::condition_variable freed_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  std::deque<Slot*> ready_;
  unsigned writing_ = 0;
  std::uint64_t nextTurn_ = 0, writeTurn_ = 0, done_ = 0;
  bool ended_ = false;
  std::optional<Error> failure_;
};

}  // namespace lodge::image
