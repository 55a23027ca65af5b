// SPDX-License-Identifier: Apache-2.0
// A tap device of the host's kernel as a network card's far side, offloads included.
#include "net/tap_net.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "net/message_net.h"
#include "net/vhost_net.h"

namespace lodge {

namespace {

/// A tap device whose frames the host's kernel moves.
class VhostTap : public VhostBackend {
 public:
  VhostTap(std::unique_ptr<VhostNet> net, unsigned mtu, std::shared_ptr<void> companion = {})
      : net_(std::move(net)), mtu_(mtu), companion_(std::move(companion)) {}
  unsigned mtu() const override { return mtu_; }
  VhostNet& vhost() override { return *net_; }

 private:
  std::unique_ptr<VhostNet> net_;
  unsigned mtu_;
  std::shared_ptr<void> companion_;
};

/// One whose frames this process moves.
class OwnTap : public MessageNet {
 public:
  OwnTap(EventLoop& loop, UniqueFd fd, unsigned mtu, std::shared_ptr<void> companion = {})
      : MessageNet(loop, std::move(fd), Kind::tap), companion_(std::move(companion)) {
    setMtu(mtu);
  }

 private:
  std::shared_ptr<void> companion_;
};

/// One queue of a device that exists. A device that was made with several is opened as such.
Result<UniqueFd> openQueue(const std::string& name, bool& several) {
  std::string what = "tap device " + inQuotes(name);
  auto howToMake =
      fmt::format("make it as root: ip tuntap add dev {0} mode tap user {1}; ip link set {0} up", name, ::getuid());
  // Opening a name that is not there would make a device, with the right to do so.
  if (::if_nametoindex(name.c_str()) == 0)
    return Error(ErrorKind::notFound, what + " does not exist").withHint(howToMake);
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return Error::fromErrno(errno, "open /dev/net/tun").context(what);
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  constexpr int kFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  request.ifr_flags = static_cast<short>(several ? kFlags | IFF_MULTI_QUEUE : kFlags);
  int done = ::ioctl(fd.get(), TUNSETIFF, &request);
  if (done != 0 && errno == EINVAL && !several) {
    request.ifr_flags = kFlags | IFF_MULTI_QUEUE;
    done = ::ioctl(fd.get(), TUNSETIFF, &request);
    several = done == 0;
  }
  int headerSize = kVirtioHeaderSize;
  if (done == 0 && ::ioctl(fd.get(), TUNSETVNETHDRSZ, &headerSize) == 0) return fd;
  int error = errno;
  auto failure = Error::fromErrno(error, what);
  if (error == EPERM) return std::move(failure).withHint("it is another user's; " + howToMake);
  if (error == EBUSY) return std::move(failure).withHint("another program has it; each machine needs one of its own");
  if (error == EINVAL) return std::move(failure).withHint("it is no tap device");
  return failure;
}

unsigned mtuOf(const std::string& name) {
  UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  if (!control || ::ioctl(control.get(), SIOCGIFMTU, &request) != 0) return 1500;
  return static_cast<unsigned>(std::clamp(request.ifr_mtu, 68, 65535));
}

/// As many queues as are wanted and the device has: one, if it was made with one.
Result<std::unique_ptr<NetBackend>> openByVhost(EventLoop& loop, const TapOptions& options, unsigned mtu) {
  std::vector<UniqueFd> queues;
  bool several = false;
  do {
    auto queue = openQueue(options.interfaceName, several);
    if (!queue) return std::move(queue).error();
    queues.push_back(std::move(*queue));
  } while (several && queues.size() < options.queues);
  auto net = VhostNet::open(loop, std::move(queues));
  if (!net) return std::move(net).error().context("tap device " + inQuotes(options.interfaceName));
  return std::unique_ptr<NetBackend>(std::make_unique<VhostTap>(std::move(*net), mtu));
}

std::unique_ptr<NetBackend> openOwn(EventLoop& loop, UniqueFd fd, unsigned mtu, std::shared_ptr<void> companion = {}) {
  unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  [[maybe_unused]] int set = ::ioctl(fd.get(), TUNSETOFFLOAD, offloads);
  return std::make_unique<OwnTap>(loop, std::move(fd), mtu, std::move(companion));
}

}  // namespace

Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const TapOptions& options) {
  const std::string& name = options.interfaceName;
  if (name.empty() || name.size() >= IFNAMSIZ)
    return Error(ErrorKind::invalidArgument, "tap device " + inQuotes(name) + ": a name has 1 to 15 characters");
  bool several = false;
  if (options.vhost != VhostUse::off) {
    auto net = openByVhost(loop, options, mtuOf(name));
    if (net || options.vhost == VhostUse::on) return net;
    log(LogLevel::info, "{}; its frames go through this process", net.error().message());
  }
  auto fd = openQueue(name, several);
  if (!fd) return std::move(fd).error();
  return openOwn(loop, std::move(*fd), mtuOf(name));
}

Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, TapQueues tap) {
  if (tap.queues.empty()) return Error(ErrorKind::invalidArgument, "a tap device without a queue");
  UniqueFd first(::fcntl(tap.queues[0].get(), F_DUPFD_CLOEXEC, 0));
  if (!first) return Error::fromErrno(errno, "tap device");
  if (tap.vhost != VhostUse::off) {
    auto net = VhostNet::open(loop, std::move(tap.queues));
    if (net) return std::unique_ptr<NetBackend>(std::make_unique<VhostTap>(std::move(*net), tap.mtu, tap.companion));
    if (tap.vhost == VhostUse::on) return std::move(net).error();
    log(LogLevel::info, "{}; its frames go through this process", net.error().message());
  }
  tap.queues.clear();
  int headerSize = kVirtioHeaderSize;
  if (::ioctl(first.get(), TUNSETVNETHDRSZ, &headerSize) != 0) return Error::fromErrno(errno, "tap device");
  return openOwn(loop, std::move(first), tap.mtu, tap.companion);
}

Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const std::string& interfaceName) {
  return openTapNet(loop, TapOptions{.interfaceName = interfaceName, .vhost = VhostUse::off});
}

std::optional<VhostUse> vhostUseFrom(std::string_view text) {
  if (text == "auto") return VhostUse::automatic;
  if (text == "on") return VhostUse::on;
  return text == "off" ? std::optional(VhostUse::off) : std::nullopt;
}

}  // namespace lodge
