// SPDX-License-Identifier: Apache-2.0
#include "net/message_net.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace lodge {

namespace {

constexpr std::size_t kMaxMessage = MessageNet::kMaxFrame + kVirtioHeaderSize;
constexpr unsigned kMostAtOnce = 64;
constexpr unsigned kBatch = 16;

/// One buffer for all: whatever is in it is delivered before the next read. Large, and only as resident as it was used.
std::array<std::array<std::uint8_t, kMaxMessage>, kBatch>& buffers() {
  static std::array<std::array<std::uint8_t, kMaxMessage>, kBatch> all;
  return all;
}

}  // namespace

MessageNet::MessageNet(EventLoop& loop, UniqueFd fd, Kind kind)
    : loop_(loop),
      fd_(std::move(fd)),
      kind_(kind),
      joiner_([this](auto frame, const FrameOffload& offload) { joined(frame, offload); }) {}

MessageNet::~MessageNet() {
  loop_.unwatch(fd_.get());
}

void MessageNet::setReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  watch();
}

void MessageNet::watch() {
  if (ended_) return;
  std::uint32_t wanted = (held_.empty() ? EPOLLIN : 0u) | (queue_.empty() ? 0u : EPOLLOUT);
  if (wanted == watched_) return;
  watched_ = wanted;
  Status done = loop_.watch(fd_.get(), wanted, [this](std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) flush();
    // Errors and the end are what the next read tells.
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) return kind_ == Kind::socket ? receiveMany() : receive();
  });
  if (!done) log(LogLevel::warning, "network port: {}", done.error().message());
}

void MessageNet::goneNow() {
  if (std::exchange(ended_, true)) return;
  loop_.unwatch(fd_.get());
  if (gone_) gone_();
}

bool MessageNet::give(std::span<const std::uint8_t> message) {
  return message.size() <= kVirtioHeaderSize || receiver_(message.subspan(kVirtioHeaderSize), fromHeader(message));
}

void MessageNet::deliver(std::span<const std::uint8_t> message) {
  if (!held_.empty() || !give(message)) held_.emplace_back(message.begin(), message.end());
}

void MessageNet::joined(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (held_.empty() && receiver_(frame, offload)) return;
  VirtioHeader header = toHeader(offload);
  std::vector<std::uint8_t> message(header.begin(), header.end());
  message.insert(message.end(), frame.begin(), frame.end());
  held_.push_back(std::move(message));
}

void MessageNet::receive() {
  for (unsigned n = 0; n < kMostAtOnce; ++n) {
    auto& buffer = buffers()[0];
    ssize_t length = ::read(fd_.get(), buffer.data(), buffer.size());
    if (length <= 0) {
      bool transient = length < 0 && (errno == EAGAIN || errno == EINTR || errno == EIO || errno == ENETDOWN);
      joiner_.flush();
      if (!transient) return goneNow();
      return watch();
    }
    auto message = std::span(buffer).first(static_cast<std::size_t>(length));
    if (message.size() > kVirtioHeaderSize) joiner_.add(message.subspan(kVirtioHeaderSize), fromHeader(message));
    if (!held_.empty()) break;
  }
  joiner_.flush();
  watch();
}

void MessageNet::receiveMany() {
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> pieces{};
  for (unsigned i = 0; i < kBatch; ++i) {
    pieces[i] = {buffers()[i].data(), kMaxMessage};
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  int count = ::recvmmsg(fd_.get(), messages.data(), kBatch, MSG_DONTWAIT, nullptr);
  if (count < 0) {
    if (errno != EAGAIN && errno != EINTR) goneNow();
    return;
  }
  for (int i = 0; i < count; ++i) {
    auto index = static_cast<unsigned>(i);
    if (messages[index].msg_len == 0) return goneNow();
    deliver(std::span(buffers()[index]).first(messages[index].msg_len));
  }
  watch();
}

void MessageNet::receiverReady() {
  while (!held_.empty() && give(held_.front())) held_.pop_front();
  watch();
}

bool MessageNet::write(std::span<const std::uint8_t> message) {
  for (;;) {
    ssize_t done = kind_ == Kind::socket
                       ? ::send(fd_.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                       : ::write(fd_.get(), message.data(), message.size());
    if (done >= 0 || (errno != EINTR && errno != EAGAIN && errno != ENOBUFS)) return true;  // sent, or lost for good
    if (errno != EINTR) return false;
  }
}

void MessageNet::send(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (ended_ || frame.size() > kMaxFrame) return;
  VirtioHeader header = toHeader(offload);
  if (queue_.empty()) {
    iovec pieces[2] = {{header.data(), header.size()}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    for (;;) {
      ssize_t done;
      if (kind_ == Kind::socket) {
        msghdr message{};
        message.msg_iov = pieces;
        message.msg_iovlen = 2;
        done = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      } else {
        done = ::writev(fd_.get(), pieces, 2);
      }
      if (done >= 0) return;
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != ENOBUFS) return;
      break;
    }
  }
  if (queued_ + frame.size() > kMaxQueuedBytes) {
    ++dropped_;
    return;
  }
  std::vector<std::uint8_t> message(header.begin(), header.end());
  message.insert(message.end(), frame.begin(), frame.end());
  queued_ += frame.size();
  queue_.push_back(std::move(message));
  watch();
}

void MessageNet::flush() {
  while (!queue_.empty() && write(queue_.front())) {
    queued_ -= queue_.front().size() - kVirtioHeaderSize;
    queue_.pop_front();
  }
  watch();
}

}  // namespace lodge
