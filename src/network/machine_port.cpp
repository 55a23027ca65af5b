// SPDX-License-Identifier: Apache-2.0
// A card's cable as its machine has it: a socket, or a tap device in the host's bridge.
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "net/message_net.h"
#include "net/tap_net.h"
#include "net/vhost_net.h"
#include "network/client.h"
#include "network/message.h"

namespace lodge::network {

namespace {

/// A cable that comes back when the network does.
class NetworkPort : public NetBackend {
 public:
  NetworkPort(EventLoop& loop, std::string name, Json settings)
      : loop_(loop), name_(std::move(name)), settings_(std::move(settings)) {
    retry_ = loop_.makeTimer([this] {
      loop_.post([this, alive = alive_] {
        if (*alive) reconnect();
      });
    });
  }
  ~NetworkPort() override { *alive_ = false; }

  void connect(Joined joined) {
    inner_ = std::make_unique<MessageNet>(loop_, std::move(joined.fd), MessageNet::Kind::socket);
    mtu_ = joined.mtu;
    inner_->onGone([this] {
      log(LogLevel::warning, "network {} has gone; trying again each second", inQuotes(name_));
      retry_->arm(loop_.clock().now() + kNanosecondsPerSecond);
    });
    if (receiver_) inner_->setReceiver(receiver_);
  }
  void setReceiver(Receiver receiver) override {
    receiver_ = std::move(receiver);
    if (inner_) inner_->setReceiver(receiver_);
  }
  void receiverReady() override {
    if (inner_) inner_->receiverReady();
  }
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override {
    if (inner_) inner_->send(frame, offload);
  }
  bool supportsOffload() const override { return true; }
  unsigned mtu() const override { return mtu_; }

 private:
  void reconnect() {
    inner_.reset();
    auto joined = join(name_, settings_);
    if (joined) {
      log(LogLevel::warning, "network {} is back", inQuotes(name_));
      return connect(std::move(*joined));
    }
    retry_->arm(loop_.clock().now() + kNanosecondsPerSecond);
  }

  EventLoop& loop_;
  std::string name_;
  Json settings_;
  unsigned mtu_ = 1500;
  Receiver receiver_;
  std::unique_ptr<MessageNet> inner_;
  std::unique_ptr<Timer> retry_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// Stands for a direct port while its device's frames go elsewhere: if the network's process dies, its successor puts
/// the device into the bridge again.
class Membership {
 public:
  Membership(EventLoop& loop, std::string name, Json settings, UniqueFd socket, UniqueFd tap)
      : loop_(loop),
        name_(std::move(name)),
        settings_(std::move(settings)),
        socket_(std::move(socket)),
        tap_(std::move(tap)),
        retry_(loop.makeTimer([this] {
          loop_.post([this, alive = alive_] {
            if (*alive) rejoin();
          });
        })) {
    settings_["direct"] = Json{{"queues", 1}, {"must", true}};
  }

  /// Whether the host's kernel moves the frames: for who looks at the network.
  void tell(bool vhost) {
    vhost_ = vhost;
    [[maybe_unused]] Status sent = sendMessage(socket_.get(), {{"vhost", vhost_}}, {});
  }
  ~Membership() {
    *alive_ = false;
    if (socket_) loop_.unwatch(socket_.get());
  }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  Status watch() {
    return loop_.watch(socket_.get(), EPOLLIN | EPOLLHUP, [this](std::uint32_t) {
      log(LogLevel::warning, "network {} has gone; trying again each second", inQuotes(name_));
      loop_.unwatch(socket_.get());
      socket_.reset();
      retry_->arm(loop_.clock().now() + kNanosecondsPerSecond);
    });
  }

 private:
  void rejoin() {
    auto joined = join(name_, settings_, tap_.get());
    if (joined) {
      log(LogLevel::warning, "network {} is back", inQuotes(name_));
      socket_ = std::move(joined->fd);
      tell(vhost_);
      if (watch()) return;
    }
    retry_->arm(loop_.clock().now() + kNanosecondsPerSecond);
  }

  EventLoop& loop_;
  std::string name_;
  Json settings_;
  UniqueFd socket_, tap_;
  bool vhost_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<Timer> retry_;
};

Result<std::unique_ptr<NetBackend>> openDirect(EventLoop& loop, const std::string& name, const Json& settings,
                                               Joined joined, VhostUse vhost) {
  if (joined.queues.empty()) return Error(ErrorKind::internal, "the network gave no tap device");
  UniqueFd tap(::fcntl(joined.queues[0].get(), F_DUPFD_CLOEXEC, 0));
  if (!tap) return Error::fromErrno(errno, "tap device");
  auto membership = std::make_shared<Membership>(loop, name, settings, std::move(joined.fd), std::move(tap));
  if (Status watched = membership->watch(); !watched) return std::move(watched).error();
  auto net = openTapNet(loop, TapQueues{std::move(joined.queues), joined.mtu, vhost, membership});
  if (net) membership->tell(dynamic_cast<VhostBackend*>(net->get()) != nullptr);
  return net;
}

/// Takes a text out of the settings.
std::string take(Json& settings, const char* key) {
  auto it = settings.find(key);
  if (it == settings.end()) return {};
  std::string text = it->is_string() ? it->get<std::string>() : std::string();
  settings.erase(it);
  return text;
}

}  // namespace

Result<std::unique_ptr<NetBackend>> openNetworkPort(EventLoop& loop, const std::string& name, Json settings,
                                                    unsigned queues) {
  std::string direct = take(settings, "direct");
  VhostUse vhost = vhostUseFrom(take(settings, "vhost")).value_or(VhostUse::automatic);
  bool kernel = vhost == VhostUse::on || (vhost == VhostUse::automatic && ::access("/dev/vhost-net", R_OK | W_OK) == 0);
  bool must = direct == "on" || vhost == VhostUse::on;
  Json request = settings;
  if (must || (kernel && direct == "auto")) request["direct"] = {{"queues", kernel ? queues : 1}, {"must", must}};
  auto joined = join(name, request);
  if (!joined) return std::move(joined).error();
  if (joined->direct) return openDirect(loop, name, settings, std::move(*joined), vhost);
  auto port = std::make_unique<NetworkPort>(loop, name, settings);
  port->connect(std::move(*joined));
  return std::unique_ptr<NetBackend>(std::move(port));
}

}  // namespace lodge::network
