// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_protocol.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>

#include "base/text.h"
#include "image/patience.h"

namespace lodge::image::nbd {

int sendAll(int socket, const void* bytes, std::size_t length, bool more) {
  const char* p = static_cast<const char*>(bytes);
  while (length != 0) {
    ssize_t n = ::send(socket, p, length, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    p += n;
    length -= static_cast<std::size_t>(n);
  }
  return 0;
}

int receiveAll(int socket, void* bytes, std::size_t length) {
  char* p = static_cast<char*>(bytes);
  while (length != 0) {
    ssize_t n = ::recv(socket, p, length, MSG_WAITALL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EPIPE;
    p += n;
    length -= static_cast<std::size_t>(n);
  }
  return 0;
}

namespace {

std::string percentDecoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      if (auto code = parseNumber("0x" + std::string(text.substr(i + 1, 2)), 255)) {
        out += static_cast<char>(*code);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

}  // namespace

Result<Address> parseAddress(const std::string& text) {
  Error bad = Error(ErrorKind::invalidArgument, "address " + inQuotes(text))
                  .withHint("write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH");
  Address address;
  bool unixSocket = text.starts_with("nbd+unix://");
  if (!unixSocket && !text.starts_with("nbd://")) return bad;
  std::string rest = text.substr(unixSocket ? 11 : 6), query;
  if (std::size_t mark = rest.find('?'); mark != std::string::npos) {
    query = rest.substr(mark + 1);
    rest.resize(mark);
  }
  std::size_t slash = rest.find('/');
  std::string authority = rest.substr(0, slash);
  if (slash != std::string::npos) address.exportName = percentDecoded(rest.substr(slash + 1));
  if (address.exportName.size() > 4096) return bad;
  if (unixSocket) {
    for (std::string_view field : split(query, '&')) {
      if (field.starts_with("socket=")) address.socketPath = percentDecoded(field.substr(7));
    }
    if (!authority.empty() || address.socketPath.empty() || address.socketPath.size() >= sizeof(sockaddr_un::sun_path))
      return bad;
    return address;
  }
  std::size_t colon = authority.starts_with("[") ? authority.find("]:") : authority.rfind(':');
  if (authority.starts_with("[") && colon != std::string::npos) ++colon;
  address.host = authority.substr(0, colon);
  address.port = colon == std::string::npos ? std::to_string(kDefaultPort) : authority.substr(colon + 1);
  if (address.host.starts_with("[") && address.host.ends_with("]"))
    address.host = address.host.substr(1, address.host.size() - 2);
  if (address.host.empty() || !parseNumber(address.port, 65535)) return bad;
  return address;
}

namespace {

Error notConnected(int error, const std::string& what) {
  return error == EAGAIN || error == EINPROGRESS ? unanswered(what) : Error::fromErrno(error, what);
}

}  // namespace

Result<UniqueFd> connectTo(const Address& address) {
  if (!address.socketPath.empty()) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    address.socketPath.copy(name.sun_path, sizeof name.sun_path - 1);
    if (fd) limitWaits(fd.get(), kServerPatience);
    if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
      return notConnected(errno, "connect to " + inQuotes(address.socketPath));
    return fd;
  }
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  std::string what = fmt::format("connect to {} port {}", inQuotes(address.host), address.port);
  if (int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found); error != 0)
    return Error(ErrorKind::notFound, what + ": " + ::gai_strerror(error));
  UniqueFd fd;
  int error = ECONNREFUSED;
  for (addrinfo* each = found; each && !fd; each = each->ai_next) {
    fd.reset(::socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd) limitWaits(fd.get(), kServerPatience);
    if (fd && ::connect(fd.get(), each->ai_addr, each->ai_addrlen) == 0) break;
    error = errno;
    fd.reset();
  }
  ::freeaddrinfo(found);
  if (!fd) return notConnected(error, what);
  int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

namespace {

struct Row {
  int error;
  std::uint32_t wire;
};
constexpr Row kRows[] = {{EPERM, 1},   {EROFS, 1},  {EIO, 5},        {ENOMEM, 12},  {EINVAL, 22},
                         {ENOSPC, 28}, {EFBIG, 28}, {EOVERFLOW, 75}, {ENOTSUP, 95}, {ESHUTDOWN, 108}};

}  // namespace

std::uint32_t toWire(int error) {
  for (const Row& row : kRows) {
    if (row.error == error) return row.wire;
  }
  return error == 0 ? 0 : 5;
}

int fromWire(std::uint32_t wire) {
  for (const Row& row : kRows) {
    if (row.wire == wire) return row.error;
  }
  return wire == 0 ? 0 : EIO;
}

}  // namespace lodge::image::nbd
