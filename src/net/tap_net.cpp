// SPDX-License-Identifier: Apache-2.0
// A tap device of the host's kernel as a network card's far side, offloads included.
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

#include "base/text.h"
#include "net/message_net.h"

namespace lodge {

Result<std::unique_ptr<NetBackend>> openTapNet(EventLoop& loop, const std::string& interfaceName) {
  std::string what = "tap device " + inQuotes(interfaceName);
  auto howToMake = fmt::format("make it as root: ip tuntap add dev {0} mode tap user {1}; ip link set {0} up",
                               interfaceName, ::getuid());
  ifreq request{};
  if (interfaceName.empty() || interfaceName.size() >= sizeof request.ifr_name)
    return Error(ErrorKind::invalidArgument, what + ": a name has 1 to 15 characters");
  // Opening a name that is not there would make a device, with the right to do so.
  if (::if_nametoindex(interfaceName.c_str()) == 0)
    return Error(ErrorKind::notFound, what + " does not exist").withHint(howToMake);
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return Error::fromErrno(errno, "open /dev/net/tun").context(what);
  std::memcpy(request.ifr_name, interfaceName.data(), interfaceName.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  int headerSize = kVirtioHeaderSize;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0 || ::ioctl(fd.get(), TUNSETVNETHDRSZ, &headerSize) != 0) {
    int error = errno;
    auto failure = Error::fromErrno(error, what);
    if (error == EPERM) return std::move(failure).withHint("it is another user's; " + howToMake);
    if (error == EBUSY) return std::move(failure).withHint("another program has it; each machine needs one of its own");
    if (error == EINVAL) return std::move(failure).withHint("it is no tap device, or one with several queues");
    return failure;
  }
  unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  [[maybe_unused]] int set = ::ioctl(fd.get(), TUNSETOFFLOAD, offloads);
  UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  auto net = std::make_unique<MessageNet>(loop, std::move(fd), MessageNet::Kind::tap);
  if (control && ::ioctl(control.get(), SIOCGIFMTU, &request) == 0)
    net->setMtu(static_cast<unsigned>(std::clamp(request.ifr_mtu, 68, 65535)));
  return std::unique_ptr<NetBackend>(std::move(net));
}

}  // namespace lodge
