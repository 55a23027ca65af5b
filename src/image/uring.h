// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace lodge::image {

/// Reads and writes of file descriptors by io_uring: any number in flight, ended on a thread of its own. Any thread may
/// submit.
class Uring {
 public:
  /// nullptr where the kernel or the container forbids io_uring.
  static std::unique_ptr<Uring> create();
  ~Uring();  // waits for what is in flight
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  /// `done` gets the bytes transferred or a negative errno value. The iovecs stay valid until then. False: the queue is
  /// full, nothing was done.
  bool submit(bool writing, int fd, std::uint64_t offset, std::span<const iovec> vectors,
              std::function<void(int)> done);

 private:
  struct State;
  explicit Uring(std::unique_ptr<State> state);
  void serve();
  std::unique_ptr<State> state_;
};

}  // namespace lodge::image
