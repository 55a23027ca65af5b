// SPDX-License-Identifier: Apache-2.0
// Copying a disk: threads that each read a piece, look for zeroes in it while it is in the processor's cache, and write
// it.
#include "image/convert.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>
#include <utility>

#include "base/text.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

constexpr std::uint64_t kPiece = 128 << 10;

/// Page-aligned, so that direct input and output can use it.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(static_cast<std::byte*>(::operator new(bytes, kAlign))) {}
  ~Buffer() { ::operator delete(bytes_, kAlign); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return bytes_; }

 private:
  static constexpr std::align_val_t kAlign{4096};
  std::byte* bytes_;
};

struct Piece {
  std::uint64_t offset = 0, length = 0;
  bool zero = false, compressed = false;
};

/// Whether one thread is enough. Between files in memory it is the fastest: writes to one file go one after the other
/// in the kernel, and a second thread waits for the first, busily. Threads gain where one sleeps (for a disk, for a
/// server) or where reading is the greater part (decoding, content that is all zeroes).
class Pace {
 public:
  void readBegins() { last_ = cpuTime(); }
  void readEnds() { reading_ += lap(); }
  void writeEnds() { writing_ += lap(); }
  /// Asked after each piece, by the thread that calls the others.
  bool wantsHelp() {
    if (++pieces_ % kPieces != 0) return false;
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    bool wants = usage.ru_nvcsw - sleeps_ >= kSleeps || reading_ > writing_;
    sleeps_ = usage.ru_nvcsw;
    reading_ = writing_ = 0;
    return std::exchange(wanted_, wants) && wants;  // twice in a row: once may be what else the machine does
  }

 private:
  static constexpr unsigned kPieces = 32;
  static constexpr long kSleeps = 8;
  /// The thread's own, in nanoseconds: that others had the processor says nothing.
  static std::int64_t cpuTime() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  }
  std::int64_t lap() {
    std::int64_t now = cpuTime();
    return now - std::exchange(last_, now);
  }
  std::int64_t last_ = 0, reading_ = 0, writing_ = 0;
  unsigned pieces_ = 0;
  long sleeps_ = 0;
  bool wanted_ = false;
};

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

/// A copy under way; work() is what each thread does.
class Copier {
 public:
  Copier(Image& from, Image& to, const CopyOptions& options)
      : from_(from), to_(to), options_(options), total_(from.size()) {
    auto info = to.info();
    std::uint64_t cluster = info ? info->clusterBytes : 0;
    // Within a small cluster of the target, zeroes cost nothing, and a piece covers whole ones; large blocks (2 MiB of
    // VHD, up to 256 MiB of VHDX) keep their holes, and must not decide how much memory each thread takes.
    constexpr std::uint64_t kMostGrain = 64 << 10, kMostPiece = 2 << 20;
    grain_ = std::max({options.sparseBytes, std::min(cluster, kMostGrain), std::uint64_t{512}});
    piece_ = std::max(kPiece, std::min(cluster, kMostPiece));
  }

  Status run() {
    unsigned count = options_.threads;
    if (count == 0) count = std::clamp(std::thread::hardware_concurrency(), 2u, 8u);
    count = static_cast<unsigned>(std::clamp<std::uint64_t>(total_ / piece_, 1, std::min(count, 64u)));
    helpers_ = count - 1;
    if (options_.threads != 0 || !options_.startAlone) callHelpers();
    Pace pace;
    work(pace, true);
    for (std::thread& thread : threads_) thread.join();
    return failure_ ? Status(std::move(*failure_)) : Status();
  }

 private:
  void callHelpers() {
    for (; helpers_ != 0; --helpers_) {
      threads_.emplace_back([this] {
        Pace pace;
        work(pace, false);
      });
    }
  }

  void work(Pace& pace, bool calls) {
    Buffer buffer(piece_);
    for (Piece piece; next(piece);) {
      int error = piece.zero ? zero(piece) : copy(piece, buffer, pace);
      if (error != 0) fail(Error::fromErrno(error, fmt::format("copy at 0x{:x}", piece.offset)));
      advance(piece.length);
      if (calls && helpers_ != 0 && (piece.compressed || pace.wantsHelp())) callHelpers();
    }
  }

  /// The next piece that is to be done; false at the end.
  bool next(Piece& piece) {
    std::lock_guard lock(mutex_);
    while (!failure_ && position_ < total_) {
      std::uint64_t end = std::min(total_, (position_ / piece_ + 1) * piece_);
      if (known_ <= position_) {
        int error = options_.topLayerOnly ? from_.blockStatus(position_, total_ - position_, status_)
                                          : chainStatus(from_, position_, total_ - position_, status_);
        if (error != 0 && options_.salvage) {
          status_ = {.length = std::min(piece_, total_ - position_), .kind = BlockStatus::Kind::data};
        } else if (error != 0) {
          failure_ = Error::fromErrno(error, fmt::format("status at 0x{:x}", position_));
          return false;
        }
        known_ = position_ + status_.length;
      }
      bool skip = status_.kind == BlockStatus::Kind::unallocated ||
                  (status_.kind == BlockStatus::Kind::zero && options_.targetIsZero && !options_.topLayerOnly &&
                   options_.sparseBytes != 0);
      if (skip) {
        done_ += known_ - position_;
        position_ = known_;
        continue;
      }
      piece = {position_, std::min(end, known_) - position_,
               status_.kind == BlockStatus::Kind::zero && options_.sparseBytes != 0, status_.compressed};
      if (piece.zero) piece.length = known_ - position_;
      // Short runs share a piece: their holes are found again.
      if (!piece.zero && !options_.topLayerOnly && known_ < end) piece.length = end - position_;
      position_ += piece.length;
      return true;
    }
    return false;
  }

  int zero(const Piece& piece) { return to_.writeZeroes(piece.offset, piece.length, true); }

  int copy(const Piece& piece, const Buffer& buffer, Pace& pace) {
    iovec v{buffer.data(), piece.length};
    pace.readBegins();
    if (int error = readPiece(from_, piece.offset, v, options_, mutex_); error != 0) return error;
    pace.readEnds();
    int error = options_.sparseBytes == 0 ? to_.write(piece.offset, {&v, 1}) : writeSparse(piece, buffer);
    pace.writeEnds();
    return error;
  }
  int writeSparse(const Piece& piece, const Buffer& buffer) {
    std::uint64_t at = 0;
    while (at < piece.length) {
      bool blank = isBlank(piece, buffer, at);
      std::uint64_t end = grainEnd(piece, at);
      while (end < piece.length && isBlank(piece, buffer, end) == blank) end = grainEnd(piece, end);
      iovec part{buffer.data() + at, end - at};
      int error = 0;
      if (!blank)
        error = to_.write(piece.offset + at, {&part, 1});
      else if (!options_.targetIsZero || options_.topLayerOnly)
        error = to_.writeZeroes(piece.offset + at, end - at, true);
      if (error != 0) return error;
      at = end;
    }
    return 0;
  }
  std::uint64_t grainEnd(const Piece& piece, std::uint64_t at) const {
    return std::min(piece.length, ((piece.offset + at) / grain_ + 1) * grain_ - piece.offset);
  }
  bool isBlank(const Piece& piece, const Buffer& buffer, std::uint64_t at) const {
    return isZero(buffer.data() + at, grainEnd(piece, at) - at);
  }

  void advance(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    done_ += bytes;
    if (options_.progress && !failure_ && !options_.progress(done_, total_))
      failure_ = Error(ErrorKind::interrupted, "interrupted");
  }
  void fail(Error error) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
  }

  Image &from_, &to_;
  const CopyOptions& options_;
  std::uint64_t total_, grain_, piece_;
  unsigned helpers_ = 0;  // not called yet
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::uint64_t position_ = 0, known_ = 0, done_ = 0;
  BlockStatus status_;
  std::optional<Error> failure_;
};

/// As Copier, for targets that take their content in order: reading and encoding on all threads, putting in turns.
class Streamer {
 public:
  Streamer(Image& from, StreamWriter& writer, const CopyOptions& options)
      : from_(from), writer_(writer), options_(options), total_(from.size()), unit_(writer.unitBytes()) {
    batch_ = std::max<std::uint64_t>(1, kPiece / unit_) * unit_;
  }

  Status run() {
    unsigned count = options_.threads;
    if (count == 0) count = std::max(2u, std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < std::min(count, 64u); ++i) threads.emplace_back([this] { work(); });
    work();
    for (std::thread& thread : threads) thread.join();
    if (failure_) return std::move(*failure_);
    if (int error = writer_.finish(); error != 0) return Error::fromErrno(error, "end the stream");
    return {};
  }

 private:
  struct Batch {
    std::uint64_t turn = 0, offset = 0, length = 0;
  };

  void work() {
    Buffer buffer(batch_);
    std::vector<std::vector<std::byte>> encoded(batch_ / unit_);
    std::vector<char> blank(encoded.size());
    for (Batch batch; next(batch);) {
      int error = encode(batch, buffer, encoded, blank);
      put(batch, buffer, encoded, blank, error);
    }
  }

  bool next(Batch& batch) {
    std::lock_guard lock(mutex_);
    while (!failure_ && position_ < total_) {
      BlockStatus status;
      int error = chainStatus(from_, position_, total_ - position_, status);
      if (error != 0 && options_.salvage) {
        status = {.length = std::min(batch_, total_ - position_), .kind = BlockStatus::Kind::data};
      } else if (error != 0) {
        failure_ = Error::fromErrno(error, fmt::format("status at 0x{:x}", position_));
        break;
      }
      std::uint64_t whole = (position_ + status.length) / unit_ * unit_;
      if (position_ + status.length == total_) whole = total_;
      if (status.kind == BlockStatus::Kind::zero && whole > position_) {
        done_ += whole - position_;
        position_ = whole;
        continue;
      }
      batch = {turns_++, position_, std::min(batch_, total_ - position_)};
      position_ += batch.length;
      return true;
    }
    return false;
  }

  int encode(const Batch& batch, const Buffer& buffer, std::vector<std::vector<std::byte>>& encoded,
             std::vector<char>& blank) {
    iovec v{buffer.data(), batch.length};
    if (int error = readPiece(from_, batch.offset, v, options_, mutex_); error != 0) return error;
    for (std::uint64_t at = 0; at < batch.length; at += unit_) {
      std::span<const std::byte> unit(buffer.data() + at, std::min(unit_, batch.length - at));
      blank[at / unit_] = isZero(unit.data(), unit.size());
      if (blank[at / unit_]) continue;
      if (int error = writer_.encode(unit, encoded[at / unit_]); error != 0) return error;
    }
    return 0;
  }

  void put(const Batch& batch, const Buffer& buffer, const std::vector<std::vector<std::byte>>& encoded,
           const std::vector<char>& blank, int error) {
    std::unique_lock lock(mutex_);
    turnCame_.wait(lock, [&] { return turn_ == batch.turn; });
    bool stop = failure_.has_value();
    lock.unlock();
    for (std::uint64_t at = 0; at < batch.length && error == 0 && !stop; at += unit_) {
      if (blank[at / unit_]) continue;
      error =
          writer_.put(batch.offset + at, {buffer.data() + at, std::min(unit_, batch.length - at)}, encoded[at / unit_]);
    }
    lock.lock();
    if (error != 0 && !failure_) failure_ = Error::fromErrno(error, fmt::format("copy at 0x{:x}", batch.offset));
    done_ += batch.length;
    if (options_.progress && !failure_ && !options_.progress(done_, total_))
      failure_ = Error(ErrorKind::interrupted, "interrupted");
    ++turn_;
    turnCame_.notify_all();
  }

  Image& from_;
  StreamWriter& writer_;
  const CopyOptions& options_;
  std::uint64_t total_, unit_, batch_;
  std::mutex mutex_;
  std::condition_variable turnCame_;
  std::uint64_t position_ = 0, done_ = 0, turns_ = 0, turn_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

Status copyContent(Image& from, Image& to, const CopyOptions& options) {
  if (to.size() < from.size())
    return Error(ErrorKind::invalidArgument, fmt::format("the target is smaller ({}) than the source ({})",
                                                         formatSize(to.size()), formatSize(from.size())));
  if (!options.compress && !to.streamOnly()) return Copier(from, to, options).run();
  auto writer = to.streamWriter();
  if (!writer) return std::move(writer).error();
  return Streamer(from, **writer, options).run();
}

}  // namespace lodge::image
