// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "net/backend.h"

namespace lodge {

namespace {

/// Frames go to and come from a tap device of the host's kernel, which does without offloads: what is longer than the
/// device's MTU was cut before it comes here.
class TapNet : public NetBackend {
 public:
  TapNet(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}
  ~TapNet() override { loop_.unwatch(fd_.get()); }

  void setReceiver(Receiver receiver) override {
    receiver_ = std::move(receiver);
    listen(true);
  }
  void receiverReady() override {
    if (held_.empty() || !receiver_(held_, FrameOffload{})) return;
    held_.clear();
    listen(true);
  }
  void send(std::span<const std::uint8_t> frame, const FrameOffload&) override {
    // A full queue drops the frame, as a wire would.
    while (::write(fd_.get(), frame.data(), frame.size()) < 0 && errno == EINTR) {
    }
  }
  bool supportsOffload() const override { return false; }

 private:
  static constexpr std::size_t kMaxFrame = 65536 + 18;
  static constexpr unsigned kMostAtOnce = 64;

  void listen(bool on) {
    Status watched = loop_.watch(fd_.get(), on ? EPOLLIN : 0u, [this](std::uint32_t events) {
      // Without its interface the file reports errors for ever: there is nothing more to hear from it.
      if ((events & (EPOLLERR | EPOLLHUP)) != 0) return loop_.unwatch(fd_.get());
      if ((events & EPOLLIN) != 0) receive();
    });
    if (!watched) log(LogLevel::warning, "tap: {}", watched.error().message());
  }
  void receive() {
    for (unsigned n = 0; n < kMostAtOnce; ++n) {
      ssize_t length = ::read(fd_.get(), buffer_.data(), buffer_.size());
      if (length <= 0) {
        if (length < 0 && errno != EAGAIN && errno != EINTR) loop_.unwatch(fd_.get());
        return;
      }
      std::span<const std::uint8_t> frame(buffer_.data(), static_cast<std::size_t>(length));
      if (receiver_(frame, FrameOffload{})) continue;
      held_.assign(frame.begin(), frame.end());
      listen(false);
      return;
    }
  }

  EventLoop& loop_;
  UniqueFd fd_;
  Receiver receiver_;
  std::vector<std::uint8_t> held_;  ///< a frame that the guest had no room for; nothing is read meanwhile
  std::array<std::uint8_t, kMaxFrame> buffer_{};
};

}  // namespace

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
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    int error = errno;
    auto failure = Error::fromErrno(error, what);
    if (error == EPERM) return std::move(failure).withHint("it is another user's; " + howToMake);
    if (error == EBUSY) return std::move(failure).withHint("another program has it; each machine needs one of its own");
    if (error == EINVAL) return std::move(failure).withHint("it is no tap device, or one with several queues");
    return failure;
  }
  return std::unique_ptr<NetBackend>(std::make_unique<TapNet>(loop, std::move(fd)));
}

}  // namespace lodge
