// SPDX-License-Identifier: Apache-2.0
#include "network/inside.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "network/reply.h"

namespace lodge::network {

namespace {

using Json = nlohmann::json;

constexpr char kCard[] = "eth0";
constexpr int kPatienceMilliseconds = 10'000;

Status failed(const char* what) {
  return Error::fromErrno(errno, std::string("network namespace: ") + what);
}

ifreq cardRequest(const char* card = kCard) {
  ifreq request{};
  std::memcpy(request.ifr_name, card, std::strlen(card));
  return request;
}

void putV4(sockaddr& out, const IpAddress& address) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(address.v4());
  std::memcpy(&out, &a, sizeof a);
}

/// What runs in the namespace: one request, one answer. One instance, in the child.
class Child {
 public:
  explicit Child(int socket) : socket_(socket) {}

  void serve() {
    Status entered = enter();
    for (bool first = true;; first = false) {
      auto request = receiveMessage(socket_);
      if (!request) return;
      std::vector<int> fds;
      Result<UniqueFd> made = entered ? answer(request->facts) : Result<UniqueFd>(entered.error());
      Json reply = {{"ok", true}};
      if (!made) {
        reply = {{"ok", false},
                 {"kind", toString(made.error().kind())},
                 {"error", made.error().message()},
                 {"hint", made.error().hint()}};
      } else if (*made) {
        fds.push_back(made->get());
      }
      if (first) reply["mac"] = toText(mac_);
      if (!sendMessage(socket_, reply, fds)) return;
    }
  }

 private:
  Status enter() {
    bool root = ::geteuid() == 0;
    // Root needs no user namespace, and may not be allowed one.
    if ((!root || ::unshare(CLONE_NEWNET) != 0) && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
      int error = errno;
      return Error(ErrorKind::permissionDenied,
                   std::string("this user may not make a network namespace: ") + std::strerror(error))
          .withHint(
              "allow user namespaces (sysctl kernel.unprivileged_userns_clone or user.max_user_namespaces; in a "
              "container, its seccomp rules), or run as root");
    }
    control_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    control6_.reset(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!control_) return failed("make a socket");
    tap_.reset(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!tap_) return failed("open /dev/net/tun");
    ifreq request = cardRequest();
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(tap_.get(), TUNSETIFF, &request) != 0) return failed("make a tap device");
    unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    [[maybe_unused]] int set = ::ioctl(tap_.get(), TUNSETOFFLOAD, offloads);
    if (::ioctl(control_.get(), SIOCGIFHWADDR, &request) != 0) return failed("read the card's address");
    std::memcpy(mac_.data(), request.ifr_hwaddr.sa_data, mac_.size());
    for (const char* card : {"lo", kCard}) {
      ifreq flags = cardRequest(card);
      if (::ioctl(control_.get(), SIOCGIFFLAGS, &flags) != 0) return failed("read a card's flags");
      flags.ifr_flags = static_cast<short>(flags.ifr_flags | IFF_UP);
      if (::ioctl(control_.get(), SIOCSIFFLAGS, &flags) != 0) return failed("switch a card on");
    }
    return {};
  }

  Result<UniqueFd> answer(const Json& r) {
    std::string what = r.value("do", "");
    if (what == "tap") return UniqueFd(::fcntl(tap_.get(), F_DUPFD_CLOEXEC, 0));
    if (what == "socket") return make(r.value("kind", 0), r.value("v6", false));
    Status done = what == "mtu"        ? setMtu(r.value("mtu", 1500))
                  : what == "address"  ? setAddress(r)
                  : what == "address6" ? setAddress6(r)
                                       : Status(Error(ErrorKind::invalidArgument, "an unknown request"));
    if (!done) return std::move(done).error();
    return UniqueFd();
  }

  Result<UniqueFd> make(int kind, bool v6) {
    constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    int type = kind == static_cast<int>(Inside::Kind::stream) ? SOCK_STREAM : SOCK_DGRAM;
    if (kind != static_cast<int>(Inside::Kind::packet)) {
      UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, type | kFlags, 0));
      if (!fd) return std::move(failed("make a socket")).error();
      return fd;
    }
    UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | kFlags, 0));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_IP);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(kCard));
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      return std::move(failed("make a packet socket")).error();
    return fd;
  }

  Status setMtu(int mtu) {
    ifreq request = cardRequest();
    request.ifr_mtu = mtu;
    return ::ioctl(control_.get(), SIOCSIFMTU, &request) == 0 ? Status() : failed("set the MTU");
  }

  Status setAddress(const Json& r) {
    auto address = ipFrom(r.value("address", "")), mask = ipFrom(r.value("mask", ""));
    auto router = ipFrom(r.value("router", ""));
    if (!address || address->v6 || !mask) return Error(ErrorKind::invalidArgument, "no IPv4 address");
    ifreq request = cardRequest();
    putV4(request.ifr_addr, *address);
    if (::ioctl(control_.get(), SIOCSIFADDR, &request) != 0) return failed("set the address");
    request = cardRequest();
    putV4(request.ifr_netmask, *mask);
    if (::ioctl(control_.get(), SIOCSIFNETMASK, &request) != 0) return failed("set the network's mask");
    if (!router || router->v6) return {};
    rtentry route{};
    putV4(route.rt_dst, IpAddress{});
    putV4(route.rt_genmask, IpAddress{});
    putV4(route.rt_gateway, *router);
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    bool set = ::ioctl(control_.get(), SIOCADDRT, &route) == 0 || errno == EEXIST;
    return set ? Status() : failed("set the router");
  }

  /// struct in6_ifreq of the kernel's, whose header does not go with the C library's.
  struct CardAddress6 {
    in6_addr address;
    std::uint32_t prefix;
    int card;
  };
  Status setAddress6(const Json& r) {
    auto address = ipFrom(r.value("address", ""));
    if (!address || !address->v6) return Error(ErrorKind::invalidArgument, "no IPv6 address");
    CardAddress6 request{};
    std::memcpy(&request.address, address->bytes.data(), 16);
    request.prefix = r.value("prefix", 64u);
    request.card = static_cast<int>(::if_nametoindex(kCard));
    bool set = ::ioctl(control6_.get(), SIOCSIFADDR, &request) == 0 || errno == EEXIST;
    return set ? Status() : failed("set the IPv6 address");
  }

  int socket_;
  UniqueFd control_, control6_, tap_;
  MacAddress mac_{};
};

}  // namespace

Result<std::unique_ptr<Inside>> Inside::create() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return Error::fromErrno(errno, "socket pair");
  UniqueFd mine(ends[0]), theirs(ends[1]);
  pid_t pid = ::fork();
  if (pid < 0) return Error::fromErrno(errno, "start a process");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The terminal's signals are for the parent, whose end ends this.
    for (int s : {SIGINT, SIGHUP, SIGTERM}) ::signal(s, SIG_IGN);
    ::prctl(PR_SET_NAME, "lodge-inside");
    mine.reset();
    Child(theirs.get()).serve();
    ::_exit(0);
  }
  std::unique_ptr<Inside> inside(new Inside(std::move(mine), pid));
  theirs.reset();
  auto card = inside->ask({{"do", "tap"}});
  if (!card) return std::move(card).error();
  auto mac = macFrom(card->facts.value("mac", ""));
  if (!mac || card->fds.empty()) return Error(ErrorKind::internal, "the network namespace gave no card");
  inside->mac_ = *mac;
  inside->tap_ = std::move(card->fds[0]);
  return inside;
}

Inside::~Inside() {
  socket_.reset();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<Message> Inside::ask(const Json& request) {
  if (Status sent = sendMessage(socket_.get(), request, {}); !sent) return std::move(sent).error();
  pollfd p{socket_.get(), POLLIN, 0};
  if (::poll(&p, 1, kPatienceMilliseconds) <= 0) return Error(ErrorKind::io, "the network namespace does not answer");
  auto reply = receiveMessage(socket_.get());
  if (!reply) return std::move(reply).error().context("network namespace");
  if (!succeeded(reply->facts)) return errorFrom(reply->facts);
  return reply;
}

Status Inside::setMtu(unsigned mtu) {
  auto done = ask({{"do", "mtu"}, {"mtu", mtu}});
  return done ? Status() : Status(std::move(done).error());
}

Status Inside::setAddress(const IpBlock& network, const IpAddress& address, const std::optional<IpAddress>& router) {
  auto done = ask({{"do", "address"},
                   {"address", toText(address)},
                   {"mask", toText(network.mask())},
                   {"router", router ? toText(*router) : ""}});
  return done ? Status() : Status(std::move(done).error());
}

Status Inside::setAddress6(const IpAddress& address, unsigned prefix) {
  auto done = ask({{"do", "address6"}, {"address", toText(address)}, {"prefix", prefix}});
  return done ? Status() : Status(std::move(done).error());
}

Result<UniqueFd> Inside::socket(Kind kind, bool v6) {
  auto made = ask({{"do", "socket"}, {"kind", static_cast<int>(kind)}, {"v6", v6}});
  if (!made) return std::move(made).error();
  if (made->fds.empty()) return Error(ErrorKind::internal, "the network namespace gave no socket");
  return std::move(made->fds[0]);
}

}  // namespace lodge::network
