// SPDX-License-Identifier: Apache-2.0
#include "network/host_cards.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "network/helper.h"

namespace lodge::network {

std::string textIn(const nlohmann::json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

unsigned mtuIn(const nlohmann::json& json) {
  auto it = json.find("mtu");
  bool good = it != json.end() && it->is_number_unsigned() && it->get<std::uint64_t>() >= 576 &&
              it->get<std::uint64_t>() <= 65521;
  return good ? it->get<unsigned>() : 1500;
}

Result<unsigned> mtuOn(const nlohmann::json& request, const std::string& card, const nlohmann::json& facts) {
  auto of = [](const nlohmann::json& json) {
    auto it = json.find("mtu");
    return it != json.end() && it->is_number_unsigned() ? it->get<unsigned>() : 0u;
  };
  unsigned has = of(facts), wanted = of(request);
  if (has == 0) has = 1500;
  if (wanted == 0) return std::min(has, 65521u);
  if (wanted <= has) return mtuIn(request);
  return Error(ErrorKind::invalidArgument,
               fmt::format("the MTU {} is more than {} has, {}", wanted, inQuotes(card), has))
      .withHint(fmt::format("leave --mtu out, or give the card more first: ip link set {} mtu {}", card, wanted));
}

bool isCard(const std::string& name) {
  return !name.empty() && name.size() < IFNAMSIZ && name[0] != '-' && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  c == '.';
         });
}

Result<MacAddress> macOf(const std::string& card) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, card.data(), std::min(card.size(), sizeof request.ifr_name - 1));
  if (::ioctl(fd.get(), SIOCGIFHWADDR, &request) != 0) return Error::fromErrno(errno, "card " + inQuotes(card));
  MacAddress mac;
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return mac;
}

Error noCard(const std::string& card) {
  return Error(ErrorKind::notFound, "there is no card " + inQuotes(card))
      .withHint("'ip -br link' lists the host's cards");
}

nlohmann::json factsOf(const std::string& card) {
  auto text = runTool({"ip", "-j", "-d", "link", "show", "dev", card});
  nlohmann::json list = text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
  return list.is_array() && !list.empty() && list[0].is_object() ? list[0] : nlohmann::json::object();
}

bool isBridge(const nlohmann::json& facts) {
  auto info = facts.find("linkinfo");
  return info != facts.end() && info->is_object() && textIn(*info, "info_kind") == "bridge";
}

Result<UniqueFd> openTapDevice(const std::string& name, const std::string& file, bool severalQueues, bool anew) {
  UniqueFd fd(::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return Error::fromErrno(errno, "open " + inQuotes(file));
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (severalQueues ? IFF_MULTI_QUEUE : 0) |
                                         (anew ? IFF_TUN_EXCL : 0));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return Error::fromErrno(errno, "tap device " + inQuotes(name));
  unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  [[maybe_unused]] int set = ::ioctl(fd.get(), TUNSETOFFLOAD, offloads);
  return fd;
}

}  // namespace lodge::network
