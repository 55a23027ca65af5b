// SPDX-License-Identifier: Apache-2.0
#include "vnc/server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace lodge::vnc {

namespace {
constexpr const char* kForm =
    "write --vnc [ADDRESS]:DISPLAY or --vnc unix:PATH, and behind it ,password-file=FILE and ,tls or "
    ",tls-cert=FILE,tls-key=FILE";
constexpr unsigned kFirstPort = 5900, kMaxDisplay = 99;
/// A client that does not take its updates gets no more of them.
constexpr std::size_t kMostQueued = 4 << 20;

Error badAddress(std::string_view text, const std::string& why) {
  return Error(ErrorKind::invalidArgument, fmt::format("--vnc {}: {}", inQuotes(text), why)).withHint(kForm);
}

/// bind(). A socket that nobody listens at any more, since its machine was killed, gives way; any other file stays.
int bindLocal(int fd, const sockaddr_un& name) {
  const auto* at = reinterpret_cast<const sockaddr*>(&name);
  int result = ::bind(fd, at, sizeof name);
  if (result == 0 || errno != EADDRINUSE) return result;
  UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  struct stat file {};
  bool isSocket = ::lstat(name.sun_path, &file) == 0 && S_ISSOCK(file.st_mode);
  bool isDead = probe && isSocket && ::connect(probe.get(), at, sizeof name) != 0 && errno == ECONNREFUSED;
  if (isDead && ::unlink(name.sun_path) == 0) return ::bind(fd, at, sizeof name);
  errno = EADDRINUSE;
  return -1;
}

Result<UniqueFd> listenOn(const Address& address) {
  bool local = !address.socket.empty();
  UniqueFd fd(::socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  std::string what =
      local ? "VNC socket " + inQuotes(address.socket)
            : fmt::format("VNC at {}:{} (display {})", address.host, address.port, address.port - kFirstPort);
  if (!fd) return Error::fromErrno(errno, what);
  int result = 0;
  if (local) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (address.socket.size() >= sizeof name.sun_path) return Error(ErrorKind::invalidArgument, what + ": too long");
    std::memcpy(name.sun_path, address.socket.data(), address.socket.size());
    result = bindLocal(fd.get(), name);
  } else {
    int yes = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(address.port);
    ::inet_pton(AF_INET, address.host.c_str(), &name.sin_addr);
    result = ::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name);
  }
  if (result == 0) result = ::listen(fd.get(), 8);
  if (result == 0) return fd;
  if (errno == EADDRINUSE) {
    return Error(ErrorKind::busy, "--vnc: " + what + " is in use").withHint("choose another display, such as :7");
  }
  return Error::fromErrno(errno, "--vnc: " + what).withHint(kForm);
}
}  // namespace

Result<Address> parseAddress(std::string_view text) {
  std::vector<std::string> fields = splitFields(text, ',');
  Address address;
  const std::string& where = fields[0];
  std::size_t colon = where.rfind(':');
  if (where.starts_with("unix:")) {
    address.socket = where.substr(5);
    if (address.socket.empty()) return badAddress(text, "no path");
  } else {
    if (colon == std::string::npos) return badAddress(text, "no ':' before the display's number");
    auto display = parseNumber(where.substr(colon + 1), kMaxDisplay);
    if (!display) return badAddress(text, fmt::format("displays have the numbers 0 to {}", kMaxDisplay));
    address.port = static_cast<std::uint16_t>(kFirstPort + *display);
    if (colon != 0) address.host = where.substr(0, colon) == "localhost" ? "127.0.0.1" : where.substr(0, colon);
    in_addr ignored{};
    if (::inet_pton(AF_INET, address.host.c_str(), &ignored) != 1) return badAddress(text, "not an IPv4 address");
  }
  for (std::size_t n = 1; n < fields.size(); ++n) {
    constexpr std::string_view kPasswordFile = "password-file=", kCertificate = "tls-cert=", kKey = "tls-key=";
    bool certificate = fields[n].starts_with(kCertificate);
    if (certificate || fields[n].starts_with(kKey)) {
      (certificate ? address.certificate : address.key) = fields[n].substr((certificate ? kCertificate : kKey).size());
      address.tls = true;
      continue;
    }
    if (fields[n] == "tls") {
      address.tls = true;
      continue;
    }
    if (!fields[n].starts_with(kPasswordFile)) return badAddress(text, "unknown setting " + inQuotes(fields[n]));
    auto file = readFile(fields[n].substr(kPasswordFile.size()), 4096);
    if (!file)
      return std::move(file).error().context("--vnc").withHint(
          "password-file= takes a file that can be read, of one line");
    address.password.assign(reinterpret_cast<const char*>(file->data()), file->size());
    while (address.password.ends_with('\n')) address.password.pop_back();
    if (address.password.empty()) return badAddress(text, "the password file is empty");
  }
  if (address.certificate.empty() != address.key.empty()) return badAddress(text, "tls-cert= and tls-key= go together");
  return address;
}

Server::Server(EventLoop& loop, Display& display, std::string name, Address address, std::shared_ptr<TlsContext> tls,
               UniqueFd listener)
    : loop_(loop),
      display_(display),
      name_(std::move(name)),
      address_(std::move(address)),
      tls_(std::move(tls)),
      listener_(std::move(listener)),
      timer_(loop.makeTimer([this] { frame(); })) {}

Result<std::unique_ptr<Server>> Server::create(EventLoop& loop, Display& display, std::string name, Address address) {
  std::shared_ptr<TlsContext> tls;
  if (address.tls) {
    auto context = TlsContext::create(address.certificate, address.key);
    if (!context) return std::move(context).error().context("--vnc");
    tls = std::move(*context);
  }
  auto listener = listenOn(address);
  if (!listener) return std::move(listener).error();
  auto server = std::unique_ptr<Server>(
      new Server(loop, display, std::move(name), std::move(address), std::move(tls), std::move(*listener)));
  if (Status s = server->start(); !s) return std::move(s).error();
  return server;
}

Server::~Server() {
  display_.clipboard().onChange(nullptr);
  for (Client& client : clients_) loop_.unwatch(client.fd.get());
  loop_.unwatch(listener_.get());
  if (!address_.socket.empty()) ::unlink(address_.socket.c_str());
}

Status Server::start() {
  display_.clipboard().onChange([this] { frameSoon(); });
  return loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

void Server::accept() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || clients_.size() >= kMaxClients) return;
  int yes = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  std::array<std::uint8_t, 16> challenge{};
  if (::getrandom(challenge.data(), challenge.size(), 0) != static_cast<ssize_t>(challenge.size())) return;
  Client& client = clients_.emplace_back();
  client.fd = std::move(fd);
  client.session = std::make_unique<Session>(display_, name_, address_.password, challenge, tls_);
  send(client);
}

void Server::remove(Client& client) {
  loop_.unwatch(client.fd.get());
  clients_.remove_if([&](const Client& c) { return &c == &client; });
}

void Server::ready(Client& client, std::uint32_t events) {
  if ((events & EPOLLIN) != 0) {
    char buffer[16384];
    ssize_t n = ::recv(client.fd.get(), buffer, sizeof buffer, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return remove(client);
    if (n > 0 && !client.session->receive({buffer, static_cast<std::size_t>(n)})) client.closing = true;
    if (client.session->waitsForUpdate()) frameSoon();
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    return remove(client);
  }
  send(client);
}

void Server::send(Client& client) {
  std::string& out = client.session->output();
  std::size_t sent = 0;
  while (sent < out.size()) {
    ssize_t n = ::send(client.fd.get(), out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) return remove(client);
    sent += static_cast<std::size_t>(n);
  }
  out.erase(0, sent);
  if (client.closing && out.empty()) return remove(client);
  std::uint32_t events = (client.closing ? 0u : EPOLLIN) | (out.empty() ? 0u : EPOLLOUT);
  Status watched =
      loop_.watch(client.fd.get(), events, [this, &client](std::uint32_t happened) { ready(client, happened); });
  if (!watched) remove(client);
}

void Server::frameSoon() {
  if (armed_) return;
  armed_ = true;
  timer_->arm(loop_.clock().now());
}

void Server::frame() {
  armed_ = false;
  if (display_.refresh()) ++generation_;
  bool waiting = false;
  for (auto it = clients_.begin(); it != clients_.end();) {
    Client& client = *it++;
    if (client.session->output().size() < kMostQueued) {
      client.session->offerClipboard();
      client.session->update(generation_);
    }
    waiting = waiting || client.session->waitsForUpdate() || !client.session->output().empty();
    if (!client.session->output().empty()) send(client);
  }
  if (!waiting) return;
  armed_ = true;
  timer_->arm(loop_.clock().now() + kNanosecondsPerSecond / kFramesPerSecond);
}

}  // namespace lodge::vnc
