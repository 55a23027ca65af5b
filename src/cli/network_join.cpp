// SPDX-License-Identifier: Apache-2.0
// What takes part in a network from outside a machine: a capture, a tap device.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/net_option.h"
#include "cli/network_common.h"
#include "cli/signals.h"
#include "network/client.h"

namespace lodge::cli {

namespace {

using network::Json;

bool writeAll(int fd, const char* data, std::size_t size) {
  while (size != 0) {
    ssize_t n = ::write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

/// Copies until the network goes, a signal comes, or the output breaks.
int copyCapture(int from, int to, int signals, std::uint64_t milliseconds) {
  std::array<char, 65536> buffer;
  timespec start{};
  ::clock_gettime(CLOCK_MONOTONIC, &start);
  for (;;) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    auto spent =
        static_cast<std::uint64_t>((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1'000'000);
    if (milliseconds != 0 && spent >= milliseconds) return exit_status::kSuccess;
    pollfd fds[2] = {{from, POLLIN, 0}, {signals, POLLIN, 0}};
    int wait = milliseconds == 0 ? -1 : static_cast<int>(milliseconds - spent);
    if (::poll(fds, 2, wait) < 0 && errno != EINTR) return fail(Error::fromErrno(errno, "poll"));
    if ((fds[1].revents & POLLIN) != 0) return exit_status::kSuccess;
    if (fds[0].revents == 0) continue;
    ssize_t n = ::read(from, buffer.data(), buffer.size());
    if (n == 0) return exit_status::kSuccess;
    if (n < 0 && errno != EINTR) return fail(Error::fromErrno(errno, "read the capture"));
    if (n > 0 && !writeAll(to, buffer.data(), static_cast<std::size_t>(n)))
      return fail(Error::fromErrno(errno, "write the capture"));
  }
}

int capture(const Invocation& invocation, const Program&) {
  blockSignals();
  auto signals = openSignalFd();
  if (!signals) return fail(signals.error());
  Json request = {{"do", "capture"}, {"port", invocation.value("port")}};
  for (auto [option, max] : {std::pair("snap", 65536u), std::pair("seconds", 1'000'000u)}) {
    if (!invocation.has(option)) continue;
    auto number = parseNumber(invocation.value(option), max);
    if (!number)
      return fail(Error(ErrorKind::invalidArgument, fmt::format("--{} takes a number up to {}", option, max)));
    request[option == std::string_view("snap") ? "snapLength" : "seconds"] = *number;
  }
  std::string path = invocation.value("write", "-");
  if (path == "-" && ::isatty(STDOUT_FILENO) == 1) {
    return fail(Error(ErrorKind::invalidArgument, "a capture is no text for a terminal")
                    .withHint("name a file with --write, or pipe into 'tshark -r -'"));
  }
  auto stream = network::askStream(invocation.arguments()[0], request);
  if (!stream) return fail(stream.error());
  UniqueFd file;
  if (path != "-") {
    file.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file) return fail(Error::fromErrno(errno, "write " + inQuotes(path)));
  }
  std::uint64_t seconds = request.value("seconds", std::uint64_t{0});
  return copyCapture(stream->get(), file ? file.get() : STDOUT_FILENO, signals->get(), seconds * 1000);
}

Result<UniqueFd> openTap(const std::string& name) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  std::string what = "tap device " + inQuotes(name);
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name)
    return Error(ErrorKind::invalidArgument, what + ": a name has 1 to 15 characters");
  if (!fd) return Error::fromErrno(errno, "open /dev/net/tun").context(what);
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    return Error::fromErrno(errno, what)
        .withHint("making one needs CAP_NET_ADMIN in this network namespace: root, or 'unshare -Urn'");
  }
  unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  [[maybe_unused]] int set = ::ioctl(fd.get(), TUNSETOFFLOAD, offloads);
  return fd;
}

/// What the kernel calls the device's address.
std::string macOf(int tap) {
  ifreq request{};
  if (::ioctl(tap, SIOCGIFHWADDR, &request) != 0) return {};
  MacAddress mac;
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return toText(mac);
}

/// The network's MTU for the device, whose user may make it smaller.
void setMtu(const std::string& tap, unsigned mtu) {
  UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, tap.data(), tap.size());
  request.ifr_mtu = static_cast<int>(mtu);
  if (!control || ::ioctl(control.get(), SIOCSIFMTU, &request) != 0)
    log(LogLevel::warning, "tap device {}: its MTU cannot be set to {}", inQuotes(tap), mtu);
}

int attach(const Invocation& invocation, const Program&) {
  blockSignals();
  auto signals = openSignalFd();
  if (!signals) return fail(signals.error());
  std::vector<std::string> fields;
  for (const std::string& text : invocation.all("set")) {
    for (std::string& field : splitFields(text, ',')) fields.push_back(std::move(field));
  }
  auto settings = parsePortSettings(fields);
  if (!settings) return fail(settings.error());
  std::string tapName = invocation.value("tap", "lodge0");
  auto tap = openTap(tapName);
  if (!tap) return fail(tap.error());
  Json request = *settings;
  request["name"] = invocation.value("name", tapName);
  if (!request.contains("mac")) request["mac"] = macOf(tap->get());
  auto joined = network::join(invocation.arguments()[0], request, tap->get());
  if (!joined) return fail(joined.error());
  setMtu(tapName, joined->mtu);
  tap->reset();  // the network's process has it now
  if (!print(tapName + "\n")) return exit_status::kLodgeError;
  pollfd fds[2] = {{joined->fd.get(), POLLIN, 0}, {signals->get(), POLLIN, 0}};
  while (::poll(fds, 2, -1) < 0 && errno == EINTR) {
  }
  if ((fds[1].revents & POLLIN) != 0) return exit_status::kSuccess;
  return fail(Error(ErrorKind::io, "network " + inQuotes(invocation.arguments()[0]) + " has gone"));
}

}  // namespace

VerbSpec networkCapture() {
  return {.name = "network capture",
          .summary = "write what passes a network to a pcapng file",
          .description =
              "Captures until interrupted, or until the network goes. Each port is an interface of the file; "
              "frames are marked in (from the machine) and out. A reader that is too slow loses whole frames.",
          .arguments = {networkArgument()},
          .options = {{.name = "write",
                       .letter = 'w',
                       .value = "FILE",
                       .help = "Where to; standard output if not given.",
                       .complete = Complete::file},
                      {.name = "port", .value = "PORT", .help = "One port only."},
                      {.name = "snap", .value = "BYTES", .help = "Keep only the beginning of each frame."},
                      {.name = "seconds", .value = "N", .help = "Stop after so long."}},
          .examples = {{"lodge network capture lab | tshark -r -", "Look at it live."}},
          .run = capture};
}

VerbSpec networkAttach() {
  return {.name = "network attach",
          .summary = "join a network namespace to a network",
          .description =
              "Makes a tap device in this network namespace and plugs it into the network, for as long as this "
              "command runs: a container or any program takes part like a machine. Addresses come by DHCP, or "
              "as you set them. The network must be up.",
          .arguments = {networkArgument()},
          .options = {{.name = "tap", .value = "DEVICE", .help = "Its name; lodge0 if not given."},
                      {.name = "name", .value = "NAME", .help = "What the port is called; as the device if not given."},
                      {.name = "set",
                       .value = "SETTING,...",
                       .help = "As after 'lodge run --net NETWORK,'.",
                       .repeats = true}},
          .examples = {{"lodge network up lab", "Before: from the namespace that the network gets out through."},
                       {"ip netns exec box lodge network attach lab --name box", "The namespace box joins."}},
          .run = attach};
}

}  // namespace lodge::cli
