// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_pci.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace lodge::cli {

namespace {
/// What a device is called by --pcie-port, and the kinds of -device that are one; those with `numbered` have a number.
struct Kind {
  const char* begin;
  const char* name;
  bool numbered;
};
constexpr Kind kKinds[] = {
    {"virtio-blk", "disk", true},
    {"nvme", "nvme", true},
    {"ahci", "ahci", true},
    {"ich9-ahci", "ahci", true},
    {"virtio-net", "net", true},
    {"e1000", "net", true},
    {"rtl8139", "net", true},
    {"virtio-scsi", "scsi", false},
    {"virtio-rng", "rng", false},
    {"virtio-balloon", "balloon", false},
    {"virtio-tablet", "tablet", false},
    {"virtio-gpu", "gpu", false},
    {"virtio-vga", "gpu", false},
    {"qemu-xhci", "usb", false},
    {"nec-usb-xhci", "usb", false},
};

const Kind* kindOf(const std::string& kind) {
  auto found = std::ranges::find_if(kKinds, [&](const Kind& k) { return kind.starts_with(k.begin); });
  return found == std::end(kKinds) ? nullptr : found;
}

bool anyHas(const std::vector<std::string>& words, std::string_view begin, std::string_view part) {
  return std::ranges::any_of(
      words, [&](const std::string& w) { return w.starts_with(begin) && w.find(part) != std::string::npos; });
}

/// Whether the machine of these words has such a controller: those of disks come with their disks.
bool exists(const std::vector<std::string>& words, std::string_view name) {
  if (name == "ahci" || name == "scsi") {
    std::string bus = fmt::format(",bus={}", name);
    return anyHas(words, "--disk=", bus) || anyHas(words, "--cdrom=", bus);
  }
  if (name == "usb") return anyHas(words, "--pointer=usb", "");
  return true;
}
}  // namespace

Status QemuPci::claimAddress(const std::string& kind, const QemuSettings& settings) {
  auto address = settings.find("addr");
  if (address == settings.end()) return {};
  auto bus = settings.find("bus");
  std::string where = (bus == settings.end() ? "" : bus->second) + "/" + address->second;
  auto [other, fresh] = addresses_.emplace(where, kind);
  if (fresh) return {};
  return Error(ErrorKind::invalidArgument,
               fmt::format("-device {}: {} is at addr={}", kind, other->second, address->second))
      .withHint("give it another address, or leave addr= out");
}

Status QemuPci::device(const std::string& kind, QemuSettings settings) {
  if (Status s = claimAddress(kind, settings); !s) return s;
  if (isPort(kind)) {
    ports_.push_back({.id = settings["id"], .kind = {}, .network = {}});
    return {};
  }
  const Kind* known = kindOf(kind);
  if (!known) return {};
  // NVMe and virtio disks without a drive are not there.
  std::string name = known->name;
  bool missing = (name == "disk" || name == "nvme") && settings["drive"].empty();
  unsigned number = missing ? 0 : counts_[name]++;
  const std::string& bus = settings["bus"];
  if (bus.empty() || bus == "pcie.0" || bus == "pci.0") return {};
  auto port = std::ranges::find(ports_, bus, &Port::id);
  if (port == ports_.end()) {
    return Error(ErrorKind::invalidArgument, fmt::format("-device {}: there is no bus {}", kind, inQuotes(bus)))
        .withHint("there is pcie.0, and what -device pcie-root-port,id=ID before it made");
  }
  if (!port->kind.empty()) {
    return Error(ErrorKind::invalidArgument,
                 fmt::format("-device {}: {} is behind port {} already", kind, port->kind, inQuotes(bus)))
        .withHint("give it a pcie-root-port of its own");
  }
  port->kind = missing ? "" : kind;
  port->number = number;
  port->network = settings["netdev"];
  return {};
}

Status QemuPci::finish(std::vector<std::string>& words, const QemuNets& nets) const {
  // Disks of -drive if=virtio come before those of -device.
  auto disks = std::ranges::count_if(
      words, [](const std::string& w) { return w.starts_with("--disk=") && w.find(",bus=") == std::string::npos; });
  std::vector<std::string> ports;
  for (const Port& port : ports_) {
    const Kind* kind = port.kind.empty() ? nullptr : kindOf(port.kind);
    std::string name = kind ? kind->name : "none";
    std::size_t number = port.number;
    if (name == "disk") number += static_cast<std::size_t>(disks);
    if (name == "ahci" && number != 0) name = "none";  // one has the drives of all
    if (name == "net" && !port.network.empty()) {
      auto network = nets.find("-device " + port.kind, port.network);
      if (!network) return std::move(network).error();
      number = *network;
    }
    if (!exists(words, name)) name = "none";
    ports.push_back("--pcie-port=" + name + (name != "none" && kind->numbered ? std::to_string(number) : ""));
  }
  words.insert(words.end(), ports.begin(), ports.end());
  return {};
}

}  // namespace lodge::cli
