// SPDX-License-Identifier: Apache-2.0
// The user network: libslirp between a network card and the host's sockets, all on the I/O thread.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <libslirp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "net/backend.h"
#include "net/offload.h"

namespace lodge {

namespace {

constexpr std::size_t kMaxQueuedFrames = 1024;

class UserNet : public NetBackend {
 public:
  explicit UserNet(EventLoop& loop) : loop_(loop) {
    pollTimer_ = loop_.makeTimer([this] { poll(); });
  }
  ~UserNet() override {
    pollTimer_.reset();
    *alive_ = false;
    if (slirp_) slirp_cleanup(slirp_);
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

  Status addForward(const PortForward& forward);
  void wantRefresh();
  void refresh();
  void poll();
  void fromSlirp(std::span<const std::uint8_t> frame);
  void toGuest(std::span<const std::uint8_t> frame, const FrameOffload& offload);

  // libslirp's callbacks; `opaque` is the UserNet.
  static UserNet& self(void* opaque) { return *static_cast<UserNet*>(opaque); }
  static const SlirpCb* callbacks();

  EventLoop& loop_;
  Slirp* slirp_ = nullptr;
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
        slirp_handle_timer(net.slirp_, id, argument);
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
  SlirpConfig config{};
  config.version = 4;
  config.restricted = options.restricted ? 1 : 0;
  config.in_enabled = true;
  inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
  inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
  inet_pton(AF_INET, "10.0.2.2", &config.vhost);
  inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
  inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
  config.in6_enabled = options.ipv6;
  inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
  config.vprefix_len = 64;
  inet_pton(AF_INET6, "fec0::2", &config.vhost6);
  inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
  config.vhostname = options.hostname.empty() ? "lodge" : options.hostname.c_str();
  config.tftp_path = options.tftp.empty() ? nullptr : options.tftp.c_str();
  config.bootfile = options.bootFile.empty() ? nullptr : options.bootFile.c_str();
  slirp_ = slirp_new(&config, callbacks(), this);
  if (!slirp_) return Error(ErrorKind::internal, "start the user network: libslirp refused its configuration");
  for (const PortForward& forward : options.forwards) {
    if (Status added = addForward(forward); !added) return added;
  }
  wantRefresh();
  return {};
}

Status UserNet::addForward(const PortForward& f) {
  std::string hostAddress = f.hostAddress.empty() ? "127.0.0.1" : f.hostAddress;
  std::string guestAddress = f.guestAddress.empty() ? "10.0.2.15" : f.guestAddress;
  std::string what = fmt::format("forward {} {}:{}", f.udp ? "udp" : "tcp", hostAddress, f.hostPort);
  in_addr host{}, guest{};
  if (inet_pton(AF_INET, hostAddress.c_str(), &host) != 1 || inet_pton(AF_INET, guestAddress.c_str(), &guest) != 1) {
    return Error(ErrorKind::invalidArgument,
                 what + fmt::format(" to {}:{}: not an IPv4 address", guestAddress, f.guestPort));
  }
  errno = 0;
  if (slirp_add_hostfwd(slirp_, f.udp ? 1 : 0, host, f.hostPort, guest, f.guestPort) == 0) return {};
  int error = errno != 0 ? errno : EADDRINUSE;
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
  slirp_pollfds_fill(
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
  slirp_pollfds_poll(
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
  slirp_input(slirp_, frame.data(), static_cast<int>(frame.size()));
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

Result<std::unique_ptr<NetBackend>> openUserNet(EventLoop& loop, const UserNetOptions& options) {
  auto net = std::make_unique<UserNet>(loop);
  if (Status opened = net->open(options); !opened) return std::move(opened).error();
  return std::unique_ptr<NetBackend>(std::move(net));
}

}  // namespace lodge
