// SPDX-License-Identifier: Apache-2.0
// Copying a disk: pieces are read, looked through for zeroes while they are in the processor's cache, and written.
#include "image/convert.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "image/copy_pipe.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

/// Reads a piece whole. To salvage, what cannot be read is left out bit by bit, and zero.
int readPiece(Image& from, std::uint64_t offset, iovec to, const CopyOptions& options, std::mutex& telling) {
  int error = from.read(offset, {&to, 1});
  if (error == 0 || !options.salvage) return error;
  constexpr std::uint64_t kUnit = 4096;
  for (std::uint64_t at = 0; at < to.iov_len; at += kUnit) {
    iovec v{static_cast<std::byte*>(to.iov_base) + at, std::min<std::uint64_t>(kUnit, to.iov_len - at)};
    if (error = from.read(offset + at, {&v, 1}); error == 0) continue;
    std::memset(v.iov_base, 0, v.iov_len);
    std::lock_guard lock(telling);
    if (options.onLoss) options.onLoss(offset + at, v.iov_len, error);
  }
  return 0;
}

/// What comes next in the source, for both ways to copy.
class Source {
 public:
  Source(Image& image, const CopyOptions& options) : image_(image), options_(options), total_(image.size()) {}

  bool ended() const { return position_ >= total_; }
  std::uint64_t position() const { return position_; }
  std::uint64_t total() const { return total_; }
  /// Where what `status()` says ends.
  std::uint64_t knownEnd() const { return known_; }
  const BlockStatus& status() const { return status_; }
  void advanceTo(std::uint64_t position) { position_ = position; }

  /// Finds out what is at the position. To salvage, `unit` bytes are taken for data where that cannot be known.
  Status look(std::uint64_t unit) {
    if (known_ > position_) return {};
    std::uint64_t left = total_ - position_;
    int error = options_.topLayerOnly ? image_.blockStatus(position_, left, status_)
                                      : chainStatus(image_, position_, left, status_);
    if (error != 0 && !options_.salvage) return Error::fromErrno(error, fmt::format("status at 0x{:x}", position_));
    if (error != 0) status_ = {.length = std::min(unit, left), .kind = BlockStatus::Kind::data};
    known_ = position_ + status_.length;
    return {};
  }

  int read(std::uint64_t offset, std::byte* to, std::uint64_t length, std::mutex& telling) {
    return readPiece(image_, offset, {to, length}, options_, telling);
  }

 private:
  Image& image_;
  const CopyOptions& options_;
  std::uint64_t total_, position_ = 0, known_ = 0;
  BlockStatus status_;
};

unsigned threadsFor(const CopyOptions& options, unsigned most) {
  unsigned count = options.threads;
  if (count == 0) count = std::clamp(std::thread::hardware_concurrency(), 2u, most);
  return std::min(count, 64u);
}

/// Into an image that takes writes anywhere.
class Copier : public CopyPipe {
 public:
  static Status copy(Image& from, Image& to, const CopyOptions& options) {
    auto info = to.info();
    std::uint64_t cluster = info ? info->clusterBytes : 0;
    // A piece covers whole clusters of the target; large blocks (up to 256 MiB of VHDX) must not decide how much
    // memory each thread takes.
    constexpr std::uint64_t kMostPiece = 2 << 20;
    Shape shape{.threads = threadsFor(options, 8),
                .writers = options.writers,
                .pieceBytes = std::max(options.pieceBytes, std::min(cluster, kMostPiece)),
                .totalBytes = from.size()};
    shape.threads = static_cast<unsigned>(std::clamp<std::uint64_t>(from.size() / shape.pieceBytes, 1, shape.threads));
    return Copier(from, to, options, shape, cluster).run();
  }

 private:
  Copier(Image& from, Image& to, const CopyOptions& options, const Shape& shape, std::uint64_t cluster)
      : CopyPipe(shape, options.progress),
        source_(from, options),
        to_(to),
        options_(options),
        piece_(shape.pieceBytes) {
    // Within a small cluster of the target, zeroes cost nothing; large blocks keep their holes.
    constexpr std::uint64_t kMostGrain = 64 << 10;
    grain_ = std::max({options.sparseBytes, std::min(cluster, kMostGrain), std::uint64_t{512}});
  }

  Result<bool> next(Piece& piece) override {
    while (!source_.ended()) {
      std::uint64_t position = source_.position();
      if (Status known = source_.look(piece_); !known) return std::move(known).error();
      BlockStatus::Kind kind = source_.status().kind;
      bool zero = kind == BlockStatus::Kind::zero && options_.sparseBytes != 0;
      if (kind == BlockStatus::Kind::unallocated || (zero && leavesZeroes())) {
        skip(source_.knownEnd() - position);
        source_.advanceTo(source_.knownEnd());
        continue;
      }
      std::uint64_t end = std::min(source_.total(), (position / piece_ + 1) * piece_);
      piece = {position, std::min(end, source_.knownEnd()) - position, zero};
      if (zero) piece.length = source_.knownEnd() - position;
      // Short runs share a piece: their holes are found again.
      if (!zero && !options_.topLayerOnly && source_.knownEnd() < end) piece.length = end - position;
      source_.advanceTo(position + piece.length);
      return true;
    }
    return false;
  }

  int fill(Slot& slot) override {
    const Piece& piece = slot.piece;
    slot.parts.clear();
    if (piece.zero) {
      slot.parts.push_back({0, piece.length, true});
      return 0;
    }
    if (int error = source_.read(piece.offset, slot.buffer.data(), piece.length, shared()); error != 0) return error;
    if (options_.sparseBytes == 0) slot.parts.push_back({0, piece.length, false});
    for (std::uint64_t at = slot.parts.empty() ? 0 : piece.length; at < piece.length;) {
      std::uint64_t end = std::min(piece.length, ((piece.offset + at) / grain_ + 1) * grain_ - piece.offset);
      bool blank = isZero(slot.buffer.data() + at, end - at);
      if (slot.parts.empty() || slot.parts.back().blank != blank) slot.parts.push_back({at, at, blank});
      slot.parts.back().end = at = end;
    }
    return 0;
  }

  int write(Slot& slot) override {
    for (const Part& part : slot.parts) {
      std::uint64_t offset = slot.piece.offset + part.begin, length = part.end - part.begin;
      iovec v{slot.buffer.data() + part.begin, length};
      int error = 0;
      if (!part.blank)
        error = to_.write(offset, {&v, 1});
      else if (!leavesZeroes())
        error = to_.writeZeroes(offset, length, true);
      if (error != 0) return error;
    }
    return 0;
  }

  /// What is not written reads as zero.
  bool leavesZeroes() const { return options_.targetIsZero && !options_.topLayerOnly; }

  Source source_;
  Image& to_;
  const CopyOptions& options_;
  std::uint64_t piece_, grain_ = 0;
};

/// Into an image that takes its content in order: reading and encoding on all threads, putting in turns.
class Streamer : public CopyPipe {
 public:
  static Status copy(Image& from, StreamWriter& writer, const CopyOptions& options) {
    constexpr std::uint64_t kBatch = 128 << 10;
    std::uint64_t unit = writer.unitBytes();
    Shape shape{.threads = threadsFor(options, 64),
                .ordered = true,
                .pieceBytes = std::max<std::uint64_t>(1, kBatch / unit) * unit,
                .totalBytes = from.size()};
    if (Status copied = Streamer(from, writer, options, shape).run(); !copied) return copied;
    if (int error = writer.finish(); error != 0) return Error::fromErrno(error, "end the stream");
    return {};
  }

 private:
  Streamer(Image& from, StreamWriter& writer, const CopyOptions& options, const Shape& shape)
      : CopyPipe(shape, options.progress),
        source_(from, options),
        writer_(writer),
        batch_(shape.pieceBytes),
        unit_(writer.unitBytes()) {}

  Result<bool> next(Piece& piece) override {
    while (!source_.ended()) {
      std::uint64_t position = source_.position();
      if (Status known = source_.look(batch_); !known) return std::move(known).error();
      std::uint64_t whole = source_.knownEnd() / unit_ * unit_;
      if (source_.knownEnd() == source_.total()) whole = source_.total();
      if (source_.status().kind == BlockStatus::Kind::zero && whole > position) {
        skip(whole - position);
        source_.advanceTo(whole);
        continue;
      }
      piece = {position, std::min(batch_, source_.total() - position)};
      source_.advanceTo(position + piece.length);
      return true;
    }
    return false;
  }

  int fill(Slot& slot) override {
    const Piece& piece = slot.piece;
    if (int error = source_.read(piece.offset, slot.buffer.data(), piece.length, shared()); error != 0) return error;
    slot.parts.resize((piece.length + unit_ - 1) / unit_);  // the encoded forms' memory is kept
    std::uint64_t at = 0;
    for (Part& part : slot.parts) {
      part.begin = at;
      part.end = at = std::min(piece.length, at + unit_);
      std::span<const std::byte> unit(slot.buffer.data() + part.begin, part.end - part.begin);
      part.blank = isZero(unit.data(), unit.size());
      if (part.blank) continue;
      if (int error = writer_.encode(unit, part.encoded); error != 0) return error;
    }
    return 0;
  }

  int write(Slot& slot) override {
    for (const Part& part : slot.parts) {
      if (part.blank) continue;
      std::span<const std::byte> unit(slot.buffer.data() + part.begin, part.end - part.begin);
      if (int error = writer_.put(slot.piece.offset + part.begin, unit, part.encoded); error != 0) return error;
    }
    return 0;
  }

  Source source_;
  StreamWriter& writer_;
  std::uint64_t batch_, unit_;
};

}  // namespace

Status copyContent(Image& from, Image& to, const CopyOptions& options) {
  if (to.size() < from.size())
    return Error(ErrorKind::invalidArgument, fmt::format("the target is smaller ({}) than the source ({})",
                                                         formatSize(to.size()), formatSize(from.size())));
  if (!options.compress && !to.streamOnly()) return Copier::copy(from, to, options);
  auto writer = to.streamWriter();
  if (!writer) return std::move(writer).error();
  return Streamer::copy(from, **writer, options);
}

}  // namespace lodge::image
