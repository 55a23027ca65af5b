// SPDX-License-Identifier: Apache-2.0
#include "network/server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "network/message.h"

namespace lodge::network {

namespace {

constexpr std::size_t kLargestRequest = 1 << 20;
constexpr std::size_t kMostClients = 64, kMostMembers = 1100;
constexpr Nanoseconds kJoinPatience = 10 * kNanosecondsPerSecond;
/// How long an unused network stays.
constexpr Nanoseconds kRest = 3 * kNanosecondsPerSecond;

Json failure(const Error& error) {
  return {{"ok", false}, {"kind", toString(error.kind())}, {"error", error.message()}, {"hint", error.hint()}};
}

std::string textOf(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

struct Server::Client {
  UniqueFd fd;
  std::string input, output;
  bool answered = false;
  std::unique_ptr<CaptureStream> capture;
  std::uint32_t watched = 0;
};

Server::Server(EventLoop& loop, Network& network, std::string folder)
    : loop_(loop), network_(network), folder_(std::move(folder)) {}

Server::~Server() {
  network_.setTap({});
  for (auto& [n, m] : members_) {
    if (m->fd) loop_.unwatch(m->fd.get());
  }
  for (auto& [n, c] : clients_) loop_.unwatch(c->fd.get());
  for (UniqueFd* fd : {&ports_, &control_}) {
    if (*fd) loop_.unwatch(fd->get());
  }
  for (const char* name : {"/ports", "/control"}) ::unlink((folder_ + name).c_str());
}

Status Server::start() {
  rest_ = loop_.makeTimer([this] {
    if (network_.machines() == 0 && !network_.stays()) stop();
  });
  if (Status s = listen("/control", SOCK_STREAM, control_, &Server::controlAccepted); !s) return s;
  if (Status s = listen("/ports", SOCK_SEQPACKET, ports_, &Server::portAccepted); !s) return s;
  restLater();
  return {};
}

/// Who asks from now on is not to rely on this process.
void Server::stop() {
  stops_ = true;
  loop_.stop();
}

void Server::restLater() {
  rest_->arm(loop_.clock().now() + kRest);
}

Status Server::listen(const char* name, int type, UniqueFd& out, void (Server::*accepted)(UniqueFd)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = folder_ + name;
  if (path.size() >= sizeof address.sun_path)
    return Error(ErrorKind::invalidArgument, "the path " + inQuotes(path) + " is too long for a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  ::unlink(path.c_str());
  out.reset(::socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!out || ::bind(out.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(out.get(), 128) != 0)
    return Error::fromErrno(errno, "socket " + inQuotes(path));
  return loop_.watch(out.get(), EPOLLIN, [this, fd = out.get(), accepted](std::uint32_t) {
    UniqueFd client(::accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client) (this->*accepted)(std::move(client));
  });
}

void Server::portAccepted(UniqueFd fd) {
  if (members_.size() >= kMostMembers) return;
  std::uint64_t number = next_++;
  auto member = std::make_unique<Member>();
  int raw = fd.get();
  member->fd = std::move(fd);
  member->patience = loop_.makeTimer([this, number] { loop_.post([this, number] { memberGone(number); }); });
  member->patience->arm(loop_.clock().now() + kJoinPatience);
  members_[number] = std::move(member);
  Status watched = loop_.watch(raw, EPOLLIN, [this, number](std::uint32_t) { readJoin(number); });
  if (!watched) members_.erase(number);
}

void Server::readJoin(std::uint64_t number) {
  auto it = members_.find(number);
  if (it == members_.end()) return;
  Member& member = *it->second;
  auto message = receiveMessage(member.fd.get());
  if (!message) return memberGone(number);
  UniqueFd tap = message->fds.empty() ? UniqueFd() : std::move(message->fds[0]);
  member.patience->cancel();
  int raw = member.fd.get();
  loop_.unwatch(raw);
  // The answer goes out before frames do.
  UniqueFd answerFd(::fcntl(raw, F_DUPFD_CLOEXEC, 0));
  std::vector<UniqueFd> queues;
  Status joined = joinMember(number, member, message->facts, std::move(tap), queues);
  Json reply =
      joined ? Json{{"ok", true}, {"port", member.port}, {"mtu", network_.definition().mtu}, {"direct", member.direct}}
             : failure(joined.error());
  std::vector<int> fds;
  for (const UniqueFd& fd : queues) fds.push_back(fd.get());
  Status sent = sendMessage(answerFd.get(), reply, fds);
  if (!joined || !sent) return memberGone(number);
  network_.ports().at(member.port)->start();
}

void Server::memberGone(std::uint64_t number) {
  auto it = members_.find(number);
  if (it == members_.end()) return;
  if (it->second->fd) loop_.unwatch(it->second->fd.get());
  if (it->second->port != 0) network_.leave(it->second->port);
  members_.erase(it);
  if (network_.machines() == 0) restLater();
}

void Server::controlAccepted(UniqueFd fd) {
  if (clients_.size() >= kMostClients) return;
  std::uint64_t number = next_++;
  auto client = std::make_unique<Client>();
  client->fd = std::move(fd);
  int raw = client->fd.get();
  clients_[number] = std::move(client);
  Status watched = loop_.watch(raw, EPOLLIN, [this, number](std::uint32_t) { readControl(number); });
  if (!watched) clients_.erase(number);
}

void Server::dropClient(std::uint64_t number) {
  auto it = clients_.find(number);
  if (it == clients_.end()) return;
  loop_.unwatch(it->second->fd.get());
  clients_.erase(it);
  tapAll();
}

void Server::readControl(std::uint64_t number) {
  auto it = clients_.find(number);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  std::array<char, 16384> buffer;
  ssize_t length = ::recv(client.fd.get(), buffer.data(), buffer.size(), 0);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) return dropClient(number);
  if (client.answered) return;
  client.input.append(buffer.data(), static_cast<std::size_t>(length));
  std::size_t end = client.input.find('\n');
  if (end == std::string::npos) {
    if (client.input.size() > kLargestRequest) dropClient(number);
    return;
  }
  Json request =
      Json::parse(client.input.begin(), client.input.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
  client.answered = true;
  client.output = textOf(answer(request, client)) + "\n";
  tapAll();
  writeControl(number);
}

void Server::tapAll() {
  bool any = false;
  for (auto& [n, c] : clients_) any = any || c->capture;
  if (!any) return network_.setTap({});
  network_.setTap([this](const Port& port, std::span<const std::uint8_t> frame, CaptureFormat::Direction direction) {
    for (auto& [number, client] : clients_) {
      if (!client->capture) continue;
      bool idle = client->output.empty() && client->capture->pending().empty();
      client->capture->add(port, frame, direction);
      if (idle) loop_.post([this, n = number] { writeControl(n); });
    }
  });
}

void Server::writeControl(std::uint64_t number) {
  auto it = clients_.find(number);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  for (;;) {
    if (client.output.empty() && client.capture) client.output.swap(client.capture->pending());
    if (client.output.empty()) break;
    ssize_t sent = ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return dropClient(number);
    client.output.erase(0, static_cast<std::size_t>(sent));
  }
  if (client.output.empty() && !client.capture) return dropClient(number);
  std::uint32_t wanted = EPOLLIN | (client.output.empty() ? 0u : EPOLLOUT);
  if (wanted == client.watched) return;
  client.watched = wanted;
  Status watched = loop_.watch(client.fd.get(), wanted, [this, number](std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) return writeControl(number);
    readControl(number);
  });
  if (!watched) dropClient(number);
}

Json Server::startCapture(const Json& request, Client& client) {
  std::string port;
  std::uint32_t snap = 0;
  if (auto it = request.find("port"); it != request.end() && it->is_string()) port = it->get<std::string>();
  if (auto it = request.find("snapLength"); it != request.end() && it->is_number_unsigned())
    snap = static_cast<std::uint32_t>(std::min<std::uint64_t>(it->get<std::uint64_t>(), 1 << 20));
  bool known = port.empty();
  for (const auto& [id, p] : network_.ports()) known = known || p->settings().name == port;
  if (!known) {
    return failure(Error(ErrorKind::notFound, "there is no port " + inQuotes(port))
                       .withHint("'lodge network show' lists the ports"));
  }
  client.capture = std::make_unique<CaptureStream>(port, snap);
  return {{"ok", true}};
}

Json Server::answer(const Json& request, Client& client) {
  auto text = [&](const char* key) {
    auto it = request.is_object() ? request.find(key) : request.end();
    return it != request.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  std::string what = request.is_object() ? text("do") : std::string();
  if (what == "describe") {
    network_.countDrops();
    return {{"ok", true}, {"network", network_.describe()}};
  }
  if (what == "leases") return {{"ok", true}, {"leases", network_.leases()}};
  if (what == "capture") return startCapture(request, client);
  if (what == "stop") {
    loop_.post([this] { stop(); });
    return {{"ok", true}};
  }
  if (what == "up") {
    if (stops_) return failure(Error(ErrorKind::busy, "the network is about to go down"));
    if (request.value("keep", Json()) == Json(true)) network_.hold();
    return {{"ok", true}};
  }
  if (what == "port" && request.contains("settings")) {
    Status changed = network_.changePort(text("name"), request["settings"]);
    return changed ? Json{{"ok", true}} : failure(changed.error());
  }
  if (what == "definition" && request.contains("definition")) {
    auto definition = definitionFrom(request["definition"]);
    Status changed = definition ? network_.changeDefinition(*definition) : Status(definition.error());
    if (changed && network_.machines() == 0) restLater();
    return changed ? Json{{"ok", true}} : failure(changed.error());
  }
  if (what == "resolve") {
    Json addresses = Json::array();
    for (const IpAddress& a : network_.addressesOf(text("name"))) addresses.push_back(toText(a));
    return {{"ok", true}, {"addresses", addresses}};
  }
  return failure(Error(ErrorKind::invalidArgument, "an unknown request"));
}

}  // namespace lodge::network
