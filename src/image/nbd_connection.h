// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "image/nbd_handshake.h"
#include "image/nbd_protocol.h"

namespace lodge::image::nbd {

/// One request on its way.
struct Call {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::span<const iovec> to{};                                     // of a read
  std::vector<std::pair<std::uint32_t, std::uint32_t>> extents{};  // of a status: bytes, flags
  int error = 0;
  bool done = false;
  std::uint32_t received = 0;
};

/// An export after the handshake. Requests of several threads are in flight at once.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(Export e) : export_(std::move(e)), receiver_([this] { receive(); }) {}
  ~Connection();

  std::uint64_t bytes() const { return export_.bytes; }
  bool has(std::uint16_t flag) const { return (export_.flags & flag) != 0; }
  bool tellsAllocation() const { return export_.allocation; }
  /// Waits for the answer, as image/patience.h has it. `payload` belongs to a write. 0, or a positive errno value.
  int run(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload);
  /// Says goodbye: requests that are under way end with an error, later ones, too.
  void close();
  /// Whether requests are under way, those among them that were given up.
  bool isBusy();

 private:
  struct Errand;

  bool mayBegin() const { return changesGivenUp_ == 0 || broken_ != 0; }
  int runImpatiently(Call& asked, Command command, std::uint16_t flags, std::span<const iovec> payload);
  void start(const std::shared_ptr<Errand>& errand, Command command, std::uint16_t flags, bool sends);
  bool hasEnded(Errand& errand);
  int transact(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload);
  Call* find(std::uint64_t cookie);
  void finish(std::uint64_t cookie, int error);
  int scatter(Call& call, std::uint64_t at, std::uint64_t length, bool hole);
  int receiveOne();
  int receiveChunk(Call& call, std::uint16_t type, std::uint32_t length);
  void receive();

  Export export_;
  std::mutex sendMutex_, mutex_;
  std::condition_variable finished_;
  std::unordered_map<std::uint64_t, Call*> calls_;
  std::uint64_t lastCookie_ = 0;
  std::chrono::steady_clock::time_point answered_{};
  unsigned changesGivenUp_ = 0;  ///< writes that were given up, and may still be done
  int broken_ = 0;
  std::thread receiver_;
};

}  // namespace lodge::image::nbd
