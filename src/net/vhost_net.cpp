// SPDX-License-Identifier: Apache-2.0
#include "net/vhost_net.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#define VIRTIO_RING_NO_LEGACY  // what it leaves out is C only
#include <linux/vhost.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace lodge {

namespace {

constexpr const char* kDevice = "/dev/vhost-net";
constexpr std::uint64_t kVersion1 = 1ull << 32, kMergeable = 1ull << 15;  // virtio 1.2, 6 and 5.1.3

Error failure(const char* what) {
  return Error::fromErrno(errno, std::string(kDevice) + ": " + what);
}

class KernelVhost : public VhostNet {
 public:
  explicit KernelVhost(EventLoop& loop) : loop_(loop) {}
  ~KernelVhost() override;

  Status addPair(UniqueFd tap);
  unsigned pairs() const override { return static_cast<unsigned>(pairs_.size()); }
  Status start(std::span<const std::byte> memory, const Driver& driver) override;
  void stop() override;
  VhostRing& ring(unsigned pair, Direction direction) override { return pairs_[pair]->rings[direction]; }
  void kick(unsigned pair, Direction direction) override;
  void onUsed(std::function<void(unsigned pair)> function) override { used_ = std::move(function); }
  void setFilter(const std::vector<MacAddress>& addresses, bool allGroups) override;
  void usePairs(unsigned count) override;

 private:
  struct Pair {
    UniqueFd tap, vhost;
    std::array<UniqueFd, 2> kicks, calls;
    std::array<VhostRing, 2> rings;
    bool attached = true;
  };
  static Status startPair(Pair& pair, std::span<const std::byte> memory, const Driver& driver);

  EventLoop& loop_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::function<void(unsigned)> used_;
};

KernelVhost::~KernelVhost() {
  stop();
  for (auto& pair : pairs_) {
    for (const UniqueFd& call : pair->calls) loop_.unwatch(call.get());
  }
}

Status KernelVhost::addPair(UniqueFd tap) {
  auto pair = std::make_unique<Pair>();
  pair->tap = std::move(tap);
  pair->vhost.reset(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (!pair->vhost) {
    auto error = Error::fromErrno(errno, std::string("open ") + kDevice);
    return errno == ENOENT ? std::move(error).withHint("load the module vhost_net, or leave vhost=on out")
                           : std::move(error).withHint("let an administrator give you the file, or leave vhost=on out");
  }
  std::uint64_t features = 0;
  constexpr std::uint64_t kNeeded = kVersion1 | kMergeable;
  if (::ioctl(pair->vhost.get(), VHOST_GET_FEATURES, &features) != 0) return failure("VHOST_GET_FEATURES");
  if ((features & kNeeded) != kNeeded)
    return Error(ErrorKind::unsupported, std::string(kDevice) + " knows no virtio 1.0").withHint("leave vhost=on out");
  if (::ioctl(pair->vhost.get(), VHOST_SET_OWNER) != 0) return failure("VHOST_SET_OWNER");
  auto number = static_cast<unsigned>(pairs_.size());
  for (unsigned direction : {receive, transmit}) {
    pair->kicks[direction].reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    UniqueFd& call = pair->calls[direction];
    call.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!pair->kicks[direction] || !call) return Error::fromErrno(errno, "eventfd");
    Status watched = loop_.watch(call.get(), EPOLLIN, [this, fd = call.get(), number](std::uint32_t) {
      eventfd_t count = 0;
      ::eventfd_read(fd, &count);
      if (used_) used_(number);
    });
    if (!watched) return watched;
  }
  pairs_.push_back(std::move(pair));
  return {};
}

Status KernelVhost::startPair(Pair& pair, std::span<const std::byte> memory, const Driver& driver) {
  int fd = pair.vhost.get();
  std::uint64_t features = kVersion1 | (driver.mergeable ? kMergeable : std::uint64_t{0});
  if (::ioctl(fd, VHOST_SET_FEATURES, &features) != 0) return failure("VHOST_SET_FEATURES");
  // Descriptors hold this process's addresses: what the kernel takes for a guest's are the same.
  auto base = reinterpret_cast<std::uintptr_t>(memory.data()) & ~std::uintptr_t{4095};
  auto end = (reinterpret_cast<std::uintptr_t>(memory.data()) + memory.size() + 4095) & ~std::uintptr_t{4095};
  vhost_memory head{};
  head.nregions = 1;
  vhost_memory_region region{
      .guest_phys_addr = base, .memory_size = end - base, .userspace_addr = base, .flags_padding = 0};
  alignas(vhost_memory) std::array<std::byte, sizeof head + sizeof region> table;
  std::memcpy(table.data(), &head, sizeof head);
  std::memcpy(table.data() + sizeof head, &region, sizeof region);
  if (::ioctl(fd, VHOST_SET_MEM_TABLE, table.data()) != 0) return failure("VHOST_SET_MEM_TABLE");
  int headerSize = kHeaderSize;
  if (::ioctl(pair.tap.get(), TUNSETVNETHDRSZ, &headerSize) != 0) return Error::fromErrno(errno, "TUNSETVNETHDRSZ");
  unsigned offloads = driver.checksum ? TUN_F_CSUM : 0;
  if (driver.checksum && driver.tcp4) offloads |= TUN_F_TSO4;
  if (driver.checksum && driver.tcp6) offloads |= TUN_F_TSO6;
  [[maybe_unused]] int set = ::ioctl(pair.tap.get(), TUNSETOFFLOAD, offloads);
  for (unsigned direction : {receive, transmit}) {
    VhostRing& ring = pair.rings[direction];
    auto at = [](const void* p) { return std::uint64_t{reinterpret_cast<std::uintptr_t>(p)}; };
    vhost_vring_state size{direction, VhostRing::kSize}, first{direction, 0};
    vhost_vring_addr places{direction, 0, at(ring.descriptors()), at(ring.used()), at(ring.available()), 0};
    vhost_vring_file kick{direction, pair.kicks[direction].get()}, call{direction, pair.calls[direction].get()};
    if (::ioctl(fd, VHOST_SET_VRING_NUM, &size) != 0 || ::ioctl(fd, VHOST_SET_VRING_BASE, &first) != 0 ||
        ::ioctl(fd, VHOST_SET_VRING_ADDR, &places) != 0 || ::ioctl(fd, VHOST_SET_VRING_KICK, &kick) != 0 ||
        ::ioctl(fd, VHOST_SET_VRING_CALL, &call) != 0)
      return failure("its rings");
  }
  for (unsigned direction : {receive, transmit}) {
    vhost_vring_file backend{direction, pair.tap.get()};
    if (::ioctl(fd, VHOST_NET_SET_BACKEND, &backend) != 0) return failure("VHOST_NET_SET_BACKEND");
  }
  return {};
}

Status KernelVhost::start(std::span<const std::byte> memory, const Driver& driver) {
  for (auto& pair : pairs_) {
    if (Status started = startPair(*pair, memory, driver); !started) {
      stop();
      return started;
    }
  }
  return {};
}

void KernelVhost::stop() {
  for (auto& pair : pairs_) {
    for (unsigned direction : {receive, transmit}) {
      vhost_vring_file none{direction, VHOST_FILE_UNBIND};
      [[maybe_unused]] int done = ::ioctl(pair->vhost.get(), VHOST_NET_SET_BACKEND, &none);
    }
  }
}

void KernelVhost::kick(unsigned pair, Direction direction) {
  if (ring(pair, direction).kickWanted()) ::eventfd_write(pairs_[pair]->kicks[direction].get(), 1);
}

void KernelVhost::setFilter(const std::vector<MacAddress>& addresses, bool allGroups) {
  constexpr std::size_t kMost = 64;
  tun_filter head{};
  alignas(tun_filter) std::array<std::uint8_t, sizeof head + kMost * sizeof(MacAddress)> filter{};
  // More than the kernel's table takes: all frames come, and the guest looks for itself.
  if (addresses.size() <= kMost) {
    head.flags = allGroups ? TUN_FLT_ALLMULTI : 0;
    head.count = static_cast<std::uint16_t>(addresses.size());
    for (std::size_t i = 0; i < addresses.size(); ++i)
      std::copy(addresses[i].begin(), addresses[i].end(), &filter[sizeof head + i * sizeof(MacAddress)]);
  }
  std::memcpy(filter.data(), &head, sizeof head);
  if (!pairs_.empty() && ::ioctl(pairs_[0]->tap.get(), TUNSETTXFILTER, filter.data()) < 0)
    log(LogLevel::info, "tap device: no filter of addresses: {}", std::strerror(errno));
}

void KernelVhost::usePairs(unsigned count) {
  for (unsigned i = 1; i < pairs(); ++i) {
    ifreq request{};
    bool wanted = i < count;
    if (pairs_[i]->attached == wanted) continue;
    request.ifr_flags = wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    if (::ioctl(pairs_[i]->tap.get(), TUNSETQUEUE, &request) == 0) pairs_[i]->attached = wanted;
  }
}

}  // namespace

Result<std::unique_ptr<VhostNet>> VhostNet::open(EventLoop& loop, std::vector<UniqueFd> taps) {
  auto net = std::make_unique<KernelVhost>(loop);
  for (UniqueFd& tap : taps) {
    if (Status added = net->addPair(std::move(tap)); !added) return std::move(added).error();
  }
  // Nothing is in the rings yet, so that any memory is right.
  static const std::array<std::byte, 4096> some{};
  Status tried = net->start(some, {});
  net->stop();
  if (!tried) return std::move(tried).error();
  return std::unique_ptr<VhostNet>(std::move(net));
}

}  // namespace lodge
