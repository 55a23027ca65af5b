// SPDX-License-Identifier: Apache-2.0
// The user network: libslirp between a network card and the host's sockets, all on the I/O thread.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "net/backend.h"
#include "net/offload.h"
#include "net/slirp_library.h"

namespace lodge {

namespace {

constexpr std::size_t kMaxQueuedFrames = 1024;

class UserNet : public NetBackend, public ForwardControl {
 public:
  explicit UserNet(EventLoop& loop) : loop_(loop) {
    pollTimer_ = loop_.makeTimer([this] { poll(); });
  }
  ~UserNet() override {
    pollTimer_.reset();
    *alive_ = false;
    if (slirp_) library_->cleanup(slirp_);
    for (const Socket& s : sockets_) loop_.unwatch(s.fd);
  }

  Status open(const UserNetOptions& options);

  void setReceiver(Receiver receiver) override { receiver_ = std::move(receiver); }
  void receiverReady() override {
    while (!queued_.empty() && receiver_ && receiver_(queued_.front().frame, queued_.front().offload))
      queued_.pop_front();
    joiner_.flush();
  }
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return true; }
  unsigned mtu() const override { return mtu_; }
  Status addForward(const PortForward& forward) override;
  void removeForward(const PortForward& forward) override;

 private:
  struct Socket {
    int fd;
    int wanted;  // SLIRP_POLL_*
    int ready;
  };
  struct QueuedFrame {
    std::vector<std::uint8_t> frame;
    FrameOffload offload;
  };
  struct SlirpTimer {
    std::unique_ptr<Timer> timer;
  };

  void wantRefresh();
  void refresh();
  void poll();
  void fromSlirp(std::span<const std::uint8_t> frame);
  void toGuest(std::span<const std::uint8_t> frame, const FrameOffload& offload);

  // libslirp's callbacks; `opaque` is the UserNet.
  static UserNet& self(void* opaque) { return *static_cast<UserNet*>(opaque); }
  static const SlirpCb* callbacks();

  EventLoop& loop_;
  const SlirpLibrary* library_ = nullptr;
  Slirp* slirp_ = nullptr;
  in_addr firstLease_{};
  unsigned mtu_ = 1500;
  Receiver receiver_;
  std::deque<QueuedFrame> queued_;
  SegmentJoiner joiner_{[this](auto frame, const FrameOffload& offload) { toGuest(frame, offload); }};
  bool flushWanted_ = false;
  std::vector<std::uint8_t> sent_;
  std::vector<Socket> sockets_;           // as of the last refresh; slirp knows them by index
  std::unordered_map<int, int> watched_;  // fd -> SLIRP_POLL_* that epoll watches
  std::unique_ptr<Timer> pollTimer_;
  bool refreshWanted_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

std::uint32_t toEpoll(int events) {
  std::uint32_t out = 0;
  if ((events & SLIRP_POLL_IN) != 0) out |= EPOLLIN;
  if ((events & SLIRP_POLL_OUT) != 0) out |= EPOLLOUT;
  if ((events & SLIRP_POLL_PRI) != 0) out |= EPOLLPRI;
  return out;
}
int fromEpoll(std::uint32_t events) {
  int out = 0;
  if ((events & EPOLLIN) != 0) out |= SLIRP_POLL_IN;
  if ((events & EPOLLOUT) != 0) out |= SLIRP_POLL_OUT;
  if ((events & EPOLLPRI) != 0) out |= SLIRP_POLL_PRI;
  if ((events & EPOLLERR) != 0) out |= SLIRP_POLL_ERR;
  if ((events & EPOLLHUP) != 0) out |= SLIRP_POLL_HUP;
  return out;
}

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

std::optional<SocketAddress> socketAddress(const std::string& text, std::uint16_t port) {
  auto ip = ipFrom(text);
  if (!ip) return std::nullopt;
  SocketAddress out;
  if (ip->v6) {
    sockaddr_in6 a{
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_flowinfo = 0, .sin6_addr = {}, .sin6_scope_id = 0};
    std::memcpy(&a.sin6_addr, ip->bytes.data(), 16);
    std::memcpy(&out.storage, &a, out.length = sizeof a);
  } else {
    sockaddr_in a{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(ip->v4())}, .sin_zero = {}};
    std::memcpy(&out.storage, &a, out.length = sizeof a);
  }
  return out;
}

Status setAddresses(const UserNetOptions& options, SlirpConfig& config) {
  auto block = blockFrom(options.network.empty() ? "10.0.2.0/24" : options.network);
  auto block6 = blockFrom(options.network6.empty() ? "fec0::/64" : options.network6);
  if (!block) return std::move(block).error();
  if (!block6) return std::move(block6).error();
  auto v4 = [&](const std::string& text, std::uint32_t number) {
    auto given = ipFrom(text);
    return in_addr{htonl((given ? *given : block->at(number)).v4())};
  };
  config.vnetwork = in_addr{htonl(block->base.v4())};
  config.vnetmask = in_addr{htonl(block->mask().v4())};
  config.vhost = v4(options.host, 2);
  config.vnameserver = v4(options.nameServer, 3);
  config.vdhcp_start = v4(options.firstLease, 15);
  config.in6_enabled = options.ipv6;
  auto v6 = [&](std::uint32_t number) {
    in6_addr address;
    std::memcpy(&address, block6->at(number).bytes.data(), 16);
    return address;
  };
  config.vprefix_addr6 = v6(0);
  config.vprefix_len = static_cast<std::uint8_t>(block6->prefix);
  config.vhost6 = v6(2);
  config.vnameserver6 = v6(3);
  return {};
}

const SlirpCb* UserNet::callbacks() {
  static const SlirpCb table = [] {
    SlirpCb cb{};
    cb.send_packet = [](const void* data, std::size_t length, void* opaque) -> ssize_t {
      self(opaque).fromSlirp({static_cast<const std::uint8_t*>(data), length});
      return static_cast<ssize_t>(length);
    };
    cb.guest_error = [](const char* message, void*) { log(LogLevel::debug, "user network: {}", message); };
    cb.clock_get_ns = [](void* opaque) -> std::int64_t { return self(opaque).loop_.clock().now(); };
    cb.timer_new_opaque = [](SlirpTimerId id, void* argument, void* opaque) -> void* {
      UserNet& net = self(opaque);
      auto* timer = new SlirpTimer;
      timer->timer = net.loop_.makeTimer([&net, id, argument] {
        net.library_->handleTimer(net.slirp_, id, argument);
        net.wantRefresh();
      });
      return timer;
    };
    cb.timer_free = [](void* timer, void*) { delete static_cast<SlirpTimer*>(timer); };
    cb.timer_mod = [](void* timer, std::int64_t milliseconds, void*) {
      static_cast<SlirpTimer*>(timer)->timer->arm(milliseconds * 1'000'000);
    };
    cb.register_poll_fd = [](int, void*) {};
    cb.unregister_poll_fd = [](int fd, void* opaque) {
      self(opaque).watched_.erase(fd);
      self(opaque).loop_.unwatch(fd);
    };
    cb.notify = [](void* opaque) { self(opaque).wantRefresh(); };
    return cb;
  }();
  return &table;
}

Status UserNet::open(const UserNetOptions& options) {
  auto library = slirpLibrary();
  if (!library) return std::move(library).error().context("start the user network");
  library_ = *library;
  SlirpConfig config{};
  config.version = 4;
  config.restricted = options.restricted ? 1 : 0;
  config.in_enabled = true;
  if (Status set = setAddresses(options, config); !set) return set;
  config.vhostname = options.hostname.empty() ? "lodge" : options.hostname.c_str();
  config.tftp_path = options.tftp.empty() ? nullptr : options.tftp.c_str();
  config.bootfile = options.bootFile.empty() ? nullptr : options.bootFile.c_str();
  config.if_mtu = config.if_mru = mtu_ = options.mtu;
  slirp_ = library_->make(&config, callbacks(), this);
  if (!slirp_) return Error(ErrorKind::internal, "start the user network: libslirp refused its configuration");
  firstLease_ = config.vdhcp_start;
  for (const PortForward& forward : options.forwards) {
    if (Status added = addForward(forward); !added) return added;
  }
  wantRefresh();
  return {};
}

void UserNet::removeForward(const PortForward& f) {
  auto host = socketAddress(f.hostAddress.empty() ? "127.0.0.1" : f.hostAddress, f.hostPort);
  if (!host) return;
  library_->removeForward(slirp_, host->get(), host->length, f.udp ? SLIRP_HOSTFWD_UDP : 0);
  wantRefresh();
}

Status UserNet::addForward(const PortForward& f) {
  std::string hostAddress = f.hostAddress.empty() ? "127.0.0.1" : f.hostAddress;
  std::string guestAddress =
      f.guestAddress.empty() ? toText(IpAddress::v4From(ntohl(firstLease_.s_addr))) : f.guestAddress;
  std::string what = fmt::format("forward {} {}:{}", f.udp ? "udp" : "tcp", hostAddress, f.hostPort);
  auto host = socketAddress(hostAddress, f.hostPort), guest = socketAddress(guestAddress, f.guestPort);
  if (!host || !guest) {
    return Error(ErrorKind::invalidArgument,
                 what + fmt::format(" to {}:{}: not an IP address", guestAddress, f.guestPort));
  }
  if (host->get()->sa_family != guest->get()->sa_family) {
    return Error(ErrorKind::invalidArgument,
                 what + fmt::format(" to {}:{}: addresses of two families", guestAddress, f.guestPort))
        .withHint("name a guest address of the host address's family");
  }
  int flags = f.udp ? SLIRP_HOSTFWD_UDP : 0;
  if (host->get()->sa_family == AF_INET6) flags |= SLIRP_HOSTFWD_V6ONLY;
  int& errorNumber = *library_->errorPlace();
  errorNumber = 0;
  if (library_->addForward(slirp_, host->get(), host->length, guest->get(), guest->length, flags) == 0) {
    wantRefresh();
    return {};
  }
  int error = errorNumber != 0 ? errorNumber : EADDRINUSE;
  auto failure = Error::fromErrno(error, what);
  if (error == EACCES) return std::move(failure).withHint("ports under 1024 need a privilege; choose another");
  return std::move(failure).withHint("choose another host port");
}

void UserNet::wantRefresh() {
  if (refreshWanted_) return;
  refreshWanted_ = true;
  loop_.post([this, alive = alive_] {
    if (*alive) refresh();
  });
}

void UserNet::refresh() {
  refreshWanted_ = false;
  sockets_.clear();
  std::uint32_t timeout = 1000;
  library_->fill(
      slirp_, &timeout,
      [](int fd, int events, void* opaque) {
        auto& sockets = *static_cast<std::vector<Socket>*>(opaque);
        sockets.push_back({fd, events, 0});
        return static_cast<int>(sockets.size()) - 1;
      },
      &sockets_);
  std::set<int> present;
  for (const Socket& s : sockets_) {
    present.insert(s.fd);
    auto [entry, isNew] = watched_.try_emplace(s.fd, s.wanted);
    if (!isNew && entry->second == s.wanted) continue;
    entry->second = s.wanted;
    Status watched = loop_.watch(s.fd, toEpoll(s.wanted), [this, fd = s.fd](std::uint32_t events) {
      for (Socket& socket : sockets_) {
        if (socket.fd == fd) socket.ready |= fromEpoll(events);
      }
      poll();
    });
    if (!watched) log(LogLevel::warning, "user network: {}", watched.error().message());
  }
  // A socket that slirp does not want to hear of now must not keep waking us.
  for (auto it = watched_.begin(); it != watched_.end();) {
    if (present.count(it->first) != 0) {
      ++it;
      continue;
    }
    loop_.unwatch(it->first);
    it = watched_.erase(it);
  }
  pollTimer_->arm(loop_.clock().now() + static_cast<Nanoseconds>(timeout) * 1'000'000);
}

void UserNet::poll() {
  library_->poll(
      slirp_, 0,
      [](int index, void* opaque) {
        auto& sockets = *static_cast<std::vector<Socket>*>(opaque);
        if (index < 0 || static_cast<std::size_t>(index) >= sockets.size()) return 0;
        return std::exchange(sockets[static_cast<std::size_t>(index)].ready, 0);
      },
      &sockets_);
  joiner_.flush();
  // slirp may serve an index only once between two fills.
  refresh();
}

/// What the guest left to its card is done here, but large segments stay large: slirp takes them as they are.
void UserNet::send(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (offload.needsChecksum || offload.segmentation != 0) {
    sent_.assign(frame.begin(), frame.end());
    if (!finishWhole(sent_, offload)) return;
    frame = sent_;
  }
  library_->input(slirp_, frame.data(), static_cast<int>(frame.size()));
  wantRefresh();
}

void UserNet::fromSlirp(std::span<const std::uint8_t> frame) {
  joiner_.add(frame);
  if (!joiner_.holds() || flushWanted_) return;
  flushWanted_ = true;
  loop_.post([this, alive = alive_] {
    if (!*alive) return;
    flushWanted_ = false;
    joiner_.flush();
  });
}

void UserNet::toGuest(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (queued_.empty() && receiver_ && receiver_(frame, offload)) return;
  if (queued_.size() < kMaxQueuedFrames) queued_.push_back({{frame.begin(), frame.end()}, offload});
}

}  // namespace

Result<UserNetParts> openUserNetParts(EventLoop& loop, const UserNetOptions& options) {
  auto net = std::make_unique<UserNet>(loop);
  if (Status opened = net->open(options); !opened) return std::move(opened).error();
  ForwardControl* control = net.get();
  return UserNetParts{std::move(net), control};
}

Result<std::unique_ptr<NetBackend>> openUserNet(EventLoop& loop, const UserNetOptions& options) {
  auto parts = openUserNetParts(loop, options);
  if (!parts) return std::move(parts).error();
  return std::move(parts->backend);
}

}  // namespace lodge
