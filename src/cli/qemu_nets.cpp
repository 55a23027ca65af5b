// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_nets.h"

#include <algorithm>
#include <array>

namespace lodge::cli {

namespace {
/// The word for --net of "user,...".
Result<std::string> userNet(const std::string& option, const std::string& text) {
  std::string net = "user";
  for (const std::string& field : splitFields(text, ',')) {
    if (field.starts_with("tftp=") || field.starts_with("bootfile=")) net += "," + doubledCommas(field);
    if (!field.starts_with("hostfwd=")) continue;
    // tcp:[ADDRESS]:PORT-[ADDRESS]:PORT
    std::string forward = field.substr(8);
    std::size_t dash = forward.rfind('-'), guest = forward.rfind(':');
    if (dash == std::string::npos || guest == std::string::npos || guest < dash)
      return qemuUnsupported(option, text, "hostfwd=tcp::2222-:22 forwards a port");
    std::string host = forward.substr(0, dash);
    std::size_t empty = host.find("::");
    if (empty != std::string::npos) host.replace(empty, 2, ":127.0.0.1:");
    net += ",forward=" + host + ":" + forward.substr(guest + 1);
  }
  return net;
}

/// Cards that QEMU has.
bool isCard(const std::string& model) {
  static constexpr std::array kFamilies{"virtio", "e1000", "i825", "ne2k_", "igb"};
  static constexpr std::array kOthers{"rtl8139", "pcnet", "vmxnet3", "tulip"};
  return std::ranges::any_of(kFamilies, [&](const char* family) { return model.starts_with(family); }) ||
         std::ranges::count(kOthers, model) != 0;
}

/// `option` with the model behind it is what the user wrote.
Status useModel(const std::string& option, const std::string& model, std::vector<std::string>& notes) {
  if (model.empty() || model.starts_with("virtio")) return {};
  if (!isCard(model)) {
    return Error(ErrorKind::unsupported, fmt::format("{}{}: there is no such network card", option, model))
        .withHint("there is virtio, and it stands in for e1000, rtl8139 and the like");
  }
  notes.push_back(fmt::format("{}{}: the network card is a virtio one", option, model));
  return {};
}
}  // namespace

Status QemuNets::net(const std::string& option, const std::string& text, std::vector<std::string>& notes) {
  auto all = qemuSettings(text, "kind");
  const std::string kind = all["kind"];
  if (kind == "none") {
    off_ = true;
    return {};
  }
  if (kind == "nic") {
    if (Status s = useModel(option + " nic,model=", all["model"], notes); !s) return s;
    cardMacs_.push_back(all["macaddr"]);
    return {};
  }
  if (option == "-nic") {
    if (Status s = useModel("-nic " + kind + ",model=", all["model"], notes); !s) return s;
  }
  std::string word;
  if (kind == "user") {
    auto net = userNet(option, text);
    if (!net) return std::move(net).error();
    word = std::move(*net);
  } else if (kind == "tap") {
    if (all["ifname"].empty())
      return qemuUnsupported(option, text, "name a tap device that exists: tap,ifname=tap0,script=no,downscript=no");
    for (const char* script : {"script", "downscript"}) {
      if (!all[script].empty() && all[script] != "no")
        notes.push_back(fmt::format("{} tap: {}={} is not run", option, script, all[script]));
    }
    word = "tap,ifname=" + doubledCommas(all["ifname"]);
  } else {
    return qemuUnsupported(option, kind, "there are user, tap, nic and none; a network without privileges is 'user'");
  }
  nets_.push_back({.id = all["id"], .word = std::move(word), .mac = option == "-nic" ? all["mac"] : ""});
  return {};
}

Result<bool> QemuNets::device(const std::string& kind, QemuSettings settings, std::vector<std::string>& notes) {
  if (!isCard(kind) || (kind.starts_with("virtio") && !kind.starts_with("virtio-net"))) return false;
  if (Status s = useModel("-device ", kind, notes); !s) return std::move(s).error();
  if (settings["netdev"].empty()) return true;
  auto at = find("-device " + kind, settings["netdev"]);
  if (!at) return std::move(at).error();
  if (!settings["mac"].empty()) nets_[*at].mac = settings["mac"];
  return true;
}

void QemuNets::finish(std::vector<std::string>& words) const {
  if (off_) {
    words.emplace_back("--net=none");
    return;
  }
  std::size_t card = 0;
  auto macOf = [&](const std::string& mac) {
    std::string chosen = mac.empty() && card < cardMacs_.size() ? cardMacs_[card] : mac;
    ++card;
    return chosen.empty() ? "" : ",mac=" + chosen;
  };
  for (const Net& net : nets_) words.push_back("--net=" + net.word + macOf(net.mac));
  // Cards without a word of what they are on are on the user network, as if there were no word of cards.
  if (nets_.empty() && !cardMacs_.empty()) words.push_back("--net=user" + macOf(""));
}

Result<std::size_t> QemuNets::find(const std::string& option, const std::string& id) const {
  auto net = std::ranges::find(nets_, id, &Net::id);
  if (net != nets_.end()) return static_cast<std::size_t>(net - nets_.begin());
  return Error(ErrorKind::invalidArgument, fmt::format("{}: there is no network {}", option, inQuotes(id)))
      .withHint("describe it before with -netdev user,id=" + id);
}

}  // namespace lodge::cli
