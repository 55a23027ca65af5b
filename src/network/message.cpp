// SPDX-License-Identifier: Apache-2.0
#include "network/message.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace lodge::network {

namespace {

constexpr std::size_t kMostFds = 9;

}  // namespace

Status sendMessage(int socket, const nlohmann::json& json, const std::vector<int>& fds) {
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > kLargestMessage || fds.size() > kMostFds)
    return Error(ErrorKind::invalidArgument, "the message is too long");
  iovec piece{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  while (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return Error::fromErrno(errno, "send a message");
  }
  return {};
}

Result<Message> receiveMessage(int socket) {
  std::string text(kLargestMessage, '\0');
  iovec piece{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t length;
  do {
    length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0) return Error::fromErrno(errno, "receive a message");
  Message out;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      out.fds.emplace_back(fd);
    }
  }
  if (length == 0) return Error(ErrorKind::io, "the other side has gone");
  out.facts = nlohmann::json::parse(text.begin(), text.begin() + length, nullptr, false);
  if (!out.facts.is_object()) return Error(ErrorKind::corrupt, "the message is no JSON object");
  return out;
}

}  // namespace lodge::network
