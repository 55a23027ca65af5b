// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "image/patience.h"

namespace lodge::image::nbd {

/// A call on a thread of its own, which whoever waits for it may give up. Under the connection's mutex but for the
/// call.
struct Connection::Errand {
  Call call{};
  std::vector<std::byte> bytes{};  ///< of a read or a write
  iovec vector{};
  bool changes = false;  ///< what the disk holds
  bool over = false, givenUp = false;
};

Connection::~Connection() {
  close();
  receiver_.join();
}

void Connection::close() {
  {
    // Who sends now, or left no room, has a server that does not listen.
    std::unique_lock lock(sendMutex_, std::try_to_lock);
    Message bye;
    bye.u32(kRequestMagic).u16(0).u16(static_cast<std::uint16_t>(Command::disconnect)).u64(0).u64(0).u32(0);
    if (lock) ::send(export_.socket.get(), bye.bytes().data(), bye.bytes().size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  ::shutdown(export_.socket.get(), SHUT_RDWR);
}

bool Connection::isBusy() {
  std::lock_guard lock(mutex_);
  return !calls_.empty();
}

int Connection::run(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload) {
  if (Impatience::applies()) return runImpatiently(call, command, flags, payload);
  {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return mayBegin(); });
  }
  return transact(call, command, flags, payload);
}

int Connection::runImpatiently(Call& asked, Command command, std::uint16_t flags, std::span<const iovec> payload) {
  auto errand = std::make_shared<Errand>();
  errand->call.offset = asked.offset;
  errand->call.length = asked.length;
  errand->changes = command == Command::write || command == Command::writeZeroes || command == Command::trim;
  if (!asked.to.empty() || !payload.empty()) errand->bytes.resize(asked.length);
  errand->vector = {errand->bytes.data(), errand->bytes.size()};
  if (!asked.to.empty()) errand->call.to = {&errand->vector, 1};
  std::byte* to = errand->bytes.data();
  for (const iovec& v : payload) to = std::copy_n(static_cast<const std::byte*>(v.iov_base), v.iov_len, to);
  {
    std::unique_lock lock(mutex_);
    if (!finished_.wait_for(lock, kServerPatience, [this] { return mayBegin(); })) return ETIMEDOUT;
  }
  start(errand, command, flags, !payload.empty());
  if (!hasEnded(*errand)) return ETIMEDOUT;
  const std::byte* from = errand->bytes.data();
  for (const iovec& v : asked.to) {
    std::copy_n(from, v.iov_len, static_cast<std::byte*>(v.iov_base));
    from += v.iov_len;
  }
  asked.extents = std::move(errand->call.extents);
  return errand->call.error;
}

void Connection::start(const std::shared_ptr<Errand>& errand, Command command, std::uint16_t flags, bool sends) {
  std::thread([self = shared_from_this(), errand, command, flags, sends] {
    errand->call.error =
        self->transact(errand->call, command, flags, std::span<const iovec>(&errand->vector, sends ? 1 : 0));
    std::lock_guard lock(self->mutex_);
    errand->over = true;
    if (errand->givenUp && errand->changes) --self->changesGivenUp_;
    self->finished_.notify_all();
  }).detach();
}

/// As Impatience has it. A server that is at something long is asked for a little now and then.
bool Connection::hasEnded(Errand& errand) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::seconds kBetweenSigns(2);
  constexpr std::uint32_t kSign = 512;
  std::shared_ptr<Errand> sign;
  Clock::time_point began = Clock::now();
  std::unique_lock lock(mutex_);
  while (!finished_.wait_for(lock, kBetweenSigns, [&] { return errand.over; })) {
    Clock::time_point now = Clock::now();
    if (now - std::max(began, answered_) >= kServerPatience || now - began >= kRequestPatience) {
      errand.givenUp = true;
      if (errand.changes) ++changesGivenUp_;
      return false;
    }
    if ((sign && !sign->over) || export_.bytes < kSign) continue;
    sign = std::make_shared<Errand>();
    sign->call.length = kSign;
    sign->bytes.resize(kSign);
    sign->vector = {sign->bytes.data(), kSign};
    sign->call.to = {&sign->vector, 1};
    lock.unlock();
    start(sign, Command::read, 0, false);
    lock.lock();
  }
  return true;
}

int Connection::transact(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload) {
  std::uint64_t cookie = 0;
  {
    std::lock_guard lock(mutex_);
    if (broken_ != 0) return broken_;
    cookie = ++lastCookie_;
    calls_[cookie] = &call;
  }
  Message m;
  m.u32(kRequestMagic)
      .u16(flags)
      .u16(static_cast<std::uint16_t>(command))
      .u64(cookie)
      .u64(call.offset)
      .u32(call.length);
  int error = 0;
  {
    std::lock_guard lock(sendMutex_);
    error = sendAll(export_.socket.get(), m.bytes().data(), m.bytes().size(), !payload.empty());
    for (std::size_t i = 0; i < payload.size() && error == 0; ++i)
      error = sendAll(export_.socket.get(), payload[i].iov_base, payload[i].iov_len, i + 1 < payload.size());
  }
  if (error != 0) ::shutdown(export_.socket.get(), SHUT_RDWR);  // the receiver ends all that wait
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return call.done; });
  return call.error;
}

Call* Connection::find(std::uint64_t cookie) {
  std::lock_guard lock(mutex_);
  auto it = calls_.find(cookie);
  return it == calls_.end() ? nullptr : it->second;
}

void Connection::finish(std::uint64_t cookie, int error) {
  std::lock_guard lock(mutex_);
  auto it = calls_.find(cookie);
  if (it == calls_.end()) return;
  if (error != 0 && it->second->error == 0) it->second->error = error;
  it->second->done = true;
  calls_.erase(it);
  finished_.notify_all();
}

/// Into the part of the caller's buffers that begins `at` bytes in.
int Connection::scatter(Call& call, std::uint64_t at, std::uint64_t length, bool hole) {
  if (call.to.empty() || at > call.length || length > call.length - at) return EPROTO;
  for (const iovec& v : call.to) {
    if (at >= v.iov_len) {
      at -= v.iov_len;
      continue;
    }
    std::size_t part = std::min<std::uint64_t>(length, v.iov_len - at);
    char* to = static_cast<char*>(v.iov_base) + at;
    if (hole)
      std::memset(to, 0, part);
    else if (int error = receiveAll(export_.socket.get(), to, part); error != 0)
      return error;
    call.received += static_cast<std::uint32_t>(part);
    length -= part;
    at = 0;
    if (length == 0) break;
  }
  return 0;
}

int Connection::receiveOne() {
  int fd = export_.socket.get();
  std::vector<char> head(4);
  if (int error = receiveAll(fd, head.data(), 4); error != 0) return error;
  std::uint32_t magic = loadBe<std::uint32_t>(head.data());
  if (magic == kSimpleReplyMagic) {
    head.resize(12);
    if (int error = receiveAll(fd, head.data(), 12); error != 0) return error;
    Fields f(head);
    int error = fromWire(f.u32());
    std::uint64_t cookie = f.u64();
    Call* call = find(cookie);
    if (!call) return EPROTO;
    if (error == 0 && !call->to.empty()) {
      if (int failed = scatter(*call, 0, call->length, false); failed != 0) return failed;
    }
    finish(cookie, error);
    return 0;
  }
  if (magic != kStructuredReplyMagic || !export_.structured) return EPROTO;
  head.resize(16);
  if (int error = receiveAll(fd, head.data(), 16); error != 0) return error;
  Fields f(head);
  std::uint16_t flags = f.u16(), type = f.u16();
  std::uint64_t cookie = f.u64();
  std::uint32_t length = f.u32();
  Call* call = find(cookie);
  if (!call || length > kMaxPayload + 8) return EPROTO;
  if (int error = receiveChunk(*call, type, length); error != 0) return error;
  if ((flags & chunk::done) != 0) {
    bool partial = call->error == 0 && !call->to.empty() && call->received != call->length;
    finish(cookie, partial ? EIO : 0);
  }
  return 0;
}

int Connection::receiveChunk(Call& call, std::uint16_t type, std::uint32_t length) {
  std::vector<char> body(type == chunk::data ? 8 : length);
  if (type == chunk::data && length < 8) return EPROTO;
  if (int error = receiveAll(export_.socket.get(), body.data(), body.size()); error != 0) return error;
  Fields f(body);
  switch (type) {
    case chunk::none:
      return 0;
    case chunk::data:
      return scatter(call, f.u64() - call.offset, length - 8, false);
    case chunk::hole: {
      std::uint64_t at = f.u64();
      return scatter(call, at - call.offset, f.u32(), true);
    }
    case chunk::blockStatus:
      f.u32();
      while (f.left() >= 8 && call.extents.size() < 4096) {
        std::uint32_t bytes = f.u32();
        call.extents.emplace_back(bytes, f.u32());
      }
      return 0;
    default:
      if ((type & 0x8000) == 0) return EPROTO;
      call.error = fromWire(f.u32());
      if (call.error == 0) call.error = EIO;
      return 0;
  }
}

void Connection::receive() {
  int error = 0;
  while (error == 0) {
    error = receiveOne();
    std::lock_guard lock(mutex_);
    answered_ = std::chrono::steady_clock::now();
  }
  std::lock_guard lock(mutex_);
  broken_ = error;
  for (auto& [cookie, call] : calls_) {
    call->error = error;
    call->done = true;
  }
  calls_.clear();
  finished_.notify_all();
}

}  // namespace lodge::image::nbd
