// SPDX-License-Identifier: Apache-2.0
#include "image/copy_pipe.h"

#include <algorithm>
#include <thread>

#include "base/text.h"

namespace lodge::image {

Status CopyPipe::run() {
  // Small, so that what was read is in the processor's cache still when it is written; but small pieces are many, as
  // threads wait for each half of them. Where the order counts, enough for the time that one thread may be late.
  constexpr std::uint64_t kAhead = 4 << 20;
  auto ahead = static_cast<unsigned>(std::min<std::uint64_t>(kAhead / shape_.pieceBytes, 64));
  unsigned count = shape_.ordered ? shape_.threads * 4 : std::max(shape_.threads + std::min(shape_.threads, 8u), ahead);
  for (unsigned i = 0; i < count; ++i) {
    slots_.push_back(std::make_unique<Slot>(shape_.pieceBytes));
    free_.push_back(slots_.back().get());
  }
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < shape_.threads; ++i) threads.emplace_back([this] { work(); });
  work();
  for (std::thread& thread : threads) thread.join();
  return failure_ ? Status(std::move(*failure_)) : Status();
}

void CopyPipe::fail(Error error) {
  if (!failure_) failure_ = std::move(error);
}

/// What can be written now, if this thread may.
CopyPipe::Slot* CopyPipe::takeReady() {
  unsigned most = shape_.ordered ? 1 : shape_.writers;
  if (ready_.empty() || (most != 0 && writing_ >= most)) return nullptr;
  auto due = shape_.ordered ? std::ranges::find(ready_, writeTurn_, &Slot::turn) : ready_.begin();
  if (due == ready_.end()) return nullptr;
  Slot* slot = *due;
  ready_.erase(due);
  return slot;
}

/// A slot with the next piece to read; nullptr if there is none, or no room for it.
CopyPipe::Slot* CopyPipe::takeFree() {
  if (ended_ || free_.empty()) return nullptr;
  Slot* slot = free_.back();
  auto more = next(slot->piece);
  ended_ = !more || !*more;
  if (!more) fail(std::move(more).error());
  if (ended_) return nullptr;
  free_.pop_back();
  slot->turn = nextTurn_++;
  return slot;
}

void CopyPipe::work() {
  std::unique_lock lock(mutex_);
  while (!failure_) {
    if (Slot* slot = takeReady()) {
      ++writing_;
      lock.unlock();
      int error = write(*slot);
      lock.lock();
      --writing_;
      ++writeTurn_;
      if (error != 0) fail(Error::fromErrno(error, fmt::format("copy at 0x{:x}", slot->piece.offset)));
      done_ += slot->piece.length;
      if (!failure_ && progress_ && !progress_(done_, shape_.totalBytes))
        fail(Error(ErrorKind::interrupted, "interrupted"));
      free_.push_back(slot);
      // Not for each: waking a thread takes a part of the time that a piece does.
      if (free_.size() * 2 >= slots_.size() || ready_.empty()) freed_.notify_one();
    } else if (Slot* slot = takeFree()) {
      lock.unlock();
      int error = fill(*slot);
      lock.lock();
      if (error != 0) fail(Error::fromErrno(error, fmt::format("copy at 0x{:x}", slot->piece.offset)));
      ready_.push_back(slot);
    } else if (ended_) {
      break;  // what is still to be written is seen by those that are writing or reading
    } else {
      freed_.wait(lock);
    }
  }
  freed_.notify_all();
}

}  // namespace lodge::image
