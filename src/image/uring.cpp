// SPDX-License-Identifier: Apache-2.0
#include "image/uring.h"

#include <liburing.h>
#include <limits.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace lodge::image {

namespace {
constexpr unsigned kEntries = 256;
}

struct Uring::State {
  io_uring ring{};
  std::mutex mutex;  // of the submission side
  unsigned inFlight = 0;
  std::thread thread;
};

std::unique_ptr<Uring> Uring::create() {
  auto state = std::make_unique<State>();
  if (::io_uring_queue_init(kEntries, &state->ring, 0) != 0) return nullptr;
  return std::unique_ptr<Uring>(new Uring(std::move(state)));
}

Uring::Uring(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->thread = std::thread([this] { serve(); });
}

Uring::~Uring() {
  {
    // An empty request without a callback tells the thread to leave once all others have ended.
    std::lock_guard lock(state_->mutex);
    io_uring_sqe* entry = ::io_uring_get_sqe(&state_->ring);
    while (!entry) {
      ::io_uring_submit(&state_->ring);
      entry = ::io_uring_get_sqe(&state_->ring);
    }
    ::io_uring_prep_nop(entry);
    ::io_uring_sqe_set_data(entry, nullptr);
    ::io_uring_submit(&state_->ring);
  }
  state_->thread.join();
  ::io_uring_queue_exit(&state_->ring);
}

bool Uring::submit(bool writing, int fd, std::uint64_t offset, std::span<const iovec> vectors,
                   std::function<void(int)> done) {
  if (vectors.size() > IOV_MAX) return false;
  std::lock_guard lock(state_->mutex);
  // As many as the completion queue can hold for certain.
  if (state_->inFlight >= kEntries) return false;
  io_uring_sqe* entry = ::io_uring_get_sqe(&state_->ring);
  if (!entry) return false;
  auto count = static_cast<unsigned>(vectors.size());
  if (writing)
    ::io_uring_prep_writev(entry, fd, vectors.data(), count, offset);
  else
    ::io_uring_prep_readv(entry, fd, vectors.data(), count, offset);
  ::io_uring_sqe_set_data(entry, new std::function<void(int)>(std::move(done)));
  ++state_->inFlight;
  ::io_uring_submit(&state_->ring);
  return true;
}

void Uring::serve() {
  bool leaving = false;
  for (;;) {
    if (leaving) {
      std::lock_guard lock(state_->mutex);
      if (state_->inFlight == 0) return;
    }
    io_uring_cqe* completion = nullptr;
    if (::io_uring_wait_cqe(&state_->ring, &completion) != 0) continue;  // a signal
    std::unique_ptr<std::function<void(int)>> done(
        static_cast<std::function<void(int)>*>(::io_uring_cqe_get_data(completion)));
    int result = completion->res;
    ::io_uring_cqe_seen(&state_->ring, completion);
    if (!done) {
      leaving = true;
      continue;
    }
    {
      std::lock_guard lock(state_->mutex);
      --state_->inFlight;
    }
    (*done)(result);
  }
}

}  // namespace lodge::image
