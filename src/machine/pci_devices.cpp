// SPDX-License-Identifier: Apache-2.0
#include "machine/pci_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "machine/layout.h"
#include "net/tap_net.h"
#include "network/client.h"
#include "virtio/entropy.h"
#include "virtio/input.h"

namespace lodge {

namespace {

constexpr unsigned kMaxQueues = 4;

/// Locally administered, and the same at each start of a machine of this name.
MacAddress macFor(const std::string& machine, std::size_t index) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : machine + "/" + std::to_string(index)) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  MacAddress mac{0x52, 0x54, 0x00};
  for (std::size_t i = 3; i < 6; ++i) mac[i] = static_cast<std::uint8_t>(hash >> (8 * i));
  return mac;
}

}  // namespace

Result<std::unique_ptr<PciDevices>> PciDevices::create(const MachineConfig& config, EventLoop& loop,
                                                       GuestMemory& memory, IoBus& ports, IoBus& mmio, Chipset& chipset,
                                                       FlashFiles flash, virtio::ConsoleDevice::Output consoleOutput) {
  unsigned firstSlot = config.board == Board::pc ? layout::kPcFirstFreeSlot : 1;
  auto devices = std::unique_ptr<PciDevices>(new PciDevices(firstSlot, config, loop, chipset.doorbells()));
  if (config.board == Board::pc) {
    auto pc = PcBoard::create(config, loop, memory, ports, mmio, chipset, devices->drives_, std::move(flash));
    if (!pc) return std::move(pc).error();
    devices->pc_ = std::move(*pc);
  }
  auto host = PciHost::create(devices->hostSetup(memory, ports, mmio, chipset));
  if (!host) return std::move(host).error();
  devices->host_ = std::move(*host);
  if (devices->pc_) {
    if (Status s = devices->pc_->plug(*devices->host_); !s) return std::move(s).error();
  }
  if (Status s = devices->addDisks(config, memory); !s) return std::move(s).error();
  auto plug = [d = devices.get()](PciFunction& function, const std::string& name) {
    return d->slots_.plug(*d->host_, function, name);
  };
  auto boots = [pc = devices->pc_.get()](char kind, std::string path, std::optional<unsigned> index) {
    if (pc) pc->addBootDevice(kind, std::move(path), index);
  };
  if (Status s = devices->storage_.open(config, memory, {plug, boots, devices->drives_}); !s)
    return std::move(s).error();
  if (Status s = devices->addNets(config, loop, memory); !s) return std::move(s).error();
  if (auto s = devices->add(std::make_unique<virtio::EntropyDevice>(memory), "virtio-rng", "rng"); !s)
    return std::move(s).error();
  if (config.balloon) {
    auto balloon = std::make_unique<virtio::BalloonDevice>(memory);
    devices->balloon_ = balloon.get();
    if (auto s = devices->add(std::move(balloon), "virtio-balloon", "balloon"); !s) return std::move(s).error();
  }
  if (config.virtioConsole) {
    auto console = std::make_unique<virtio::ConsoleDevice>(memory, std::move(consoleOutput));
    devices->console_ = console.get();
    if (auto s = devices->add(std::move(console), "virtio-console", "console"); !s) return std::move(s).error();
  }
  if (devices->pc_) {
    if (Status s = devices->pc_->display() ? devices->addPointer(config, memory) : Status{}; !s)
      return std::move(s).error();
    if (config.graphics == Graphics::virtio) {
      constexpr unsigned kWidth = 1024, kHeight = 768;
      auto gpu = std::make_unique<virtio::GpuDevice>(memory, kWidth, kHeight);
      devices->pc_->display()->setGpu(gpu.get());
      if (auto s = devices->add(std::move(gpu), "virtio-gpu", "gpu"); !s) return std::move(s).error();
    }
    if (Status s = devices->pc_->describeToFirmware(config, memory); !s) return std::move(s).error();
  }
  if (Status s = devices->slots_.finish(*devices->host_); !s) return std::move(s).error();
  return devices;
}

PciHost::Setup PciDevices::hostSetup(GuestMemory& memory, IoBus& ports, IoBus& mmio, Chipset& chipset) {
  InterruptRouter& interrupts = chipset.interrupts();
  auto line = [&](unsigned pin) { return pc_ ? &pc_->pciInterrupt(pin) : &interrupts.gsi(layout::kPciGsiBase + pin); };
  PciHost::Setup setup{ports,
                       mmio,
                       chipset.apicBus(),
                       {line(0), line(1), line(2), line(3)},
                       layout::kEcamBase,
                       layout::kPciWindow32Base,
                       layout::kPciWindow32Size,
                       layout::pciWindow64Base(GuestMemory::kHoleEnd + memory.highSize()),
                       layout::kPciWindow64Size,
                       &chipset.resetControl()};
  if (pc_) {
    setup.ecamBase = 0;
    setup.window32Base = layout::pcWindow32Base(memory.lowSize());
    setup.window32Size = layout::kPcWindow32End - setup.window32Base;
    setup.window64Base = layout::pcWindow64Base(GuestMemory::kHoleEnd + memory.highSize());
    setup.window64Size = (std::uint64_t{1} << 52) - setup.window64Base;
    setup.bridge = &pc_->bridge();
    setup.firmwareAssigns = true;
  }
  return setup;
}

bool PciDevices::isQuiet() {
  return std::ranges::all_of(functions_, [](auto& function) { return function->device().isQuiet(); }) &&
         (!pc_ || pc_->isQuiet()) && storage_.isQuiet();
}

int PciDevices::quiesce() {
  int error = 0;
  auto quiet = [&error](auto& device) {
    if (int failed = device.quiesce(); error == 0) error = failed;
  };
  for (auto& function : functions_) quiet(function->device());
  if (pc_) quiet(*pc_);
  quiet(storage_);
  return error;
}

void PciDevices::transfer(state::Snapshot& snapshot) {
  using state::Archive;
  snapshot.section("pci", 1, [&](Archive& a) { host_->transfer(a); });
  if (pc_) pc_->transfer(snapshot);
  unsigned number = 0;
  for (auto& function : functions_) {
    snapshot.section(fmt::format("{} {}", function->name(), number++), 1, [&](Archive& a) { function->transfer(a); });
  }
  if (usb_) {
    snapshot.section("xhci", 1, [&](Archive& a) { usb_->transfer(a); });
    snapshot.section("usb-tablet", 1, [&](Archive& a) { usbTablet_.transfer(a); });
  }
  storage_.transfer(snapshot);
  slots_.transfer(snapshot);
}

void PciDevices::resume() {
  for (auto& function : functions_) function->resume();
  storage_.resume();
}

void PciDevices::reset() {
  host_->reset();
  if (pc_) pc_->reset();
}

Result<PciSlots::Place> PciDevices::add(std::unique_ptr<virtio::Device> device, std::string functionName,
                                        const std::string& name) {
  functions_.push_back(std::make_unique<virtio::PciTransport>(std::move(device), std::move(functionName)));
  functions_.back()->useDoorbells(doorbells_, loop_);
  return slots_.plug(*host_, *functions_.back(), name);
}

Status PciDevices::addDisks(const MachineConfig& config, GuestMemory& memory) {
  for (const DriveConfig& options : config.disks) {
    if (options.bus != DriveBus::virtio) continue;
    auto disk = openDisk(options);
    if (!disk) return withDiskHint(std::move(disk).error()).context("--disk");
    std::string serial = fmt::format("disk{}", disks_.size());
    auto device =
        std::make_unique<virtio::BlockDevice>(memory, std::move(*disk), serial, std::min(config.cpus, kMaxQueues));
    disks_.push_back(device.get());
    auto place = add(std::move(device), "virtio-blk " + serial, serial);
    if (!place) return std::move(place).error();
    if (pc_) pc_->addBootDevice('c', place->path("scsi") + "/disk@0,0", options.bootIndex);
  }
  return {};
}

Status PciDevices::addPointer(const MachineConfig& config, GuestMemory& memory) {
  auto follow = [this](auto* tablet) {
    pc_->display()->setTablet([tablet](std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel) {
      return tablet->move(x, y, buttons, wheel);
    });
  };
  if (config.pointer == Pointer::virtio) {
    auto tablet = std::make_unique<virtio::TabletDevice>(memory);
    follow(tablet.get());
    if (auto s = add(std::move(tablet), "virtio-tablet", "tablet"); !s) return std::move(s).error();
  } else if (config.pointer == Pointer::usb) {
    usb_ = std::make_unique<usb::XhciController>(memory);
    usb_->attach(0, usbTablet_);
    follow(&usbTablet_);
    if (auto s = slots_.plug(*host_, *usb_, "usb"); !s) return std::move(s).error();
  }
  return {};
}

namespace {

Result<std::unique_ptr<NetBackend>> openNetworkCard(EventLoop& loop, const NetConfig& net, const std::string& machine,
                                                    const MacAddress& mac, unsigned queues) {
  network::Json settings = network::Json::parse(net.port, nullptr, false);
  if (!settings.is_object()) return Error(ErrorKind::internal, "the settings of a network port are no JSON");
  settings["name"] = machine;
  settings["mac"] = toText(mac);
  return network::openNetworkPort(loop, net.network, std::move(settings), queues);
}

/// A tap device's settings are a port's, too: {"vhost":"on"}.
Result<std::unique_ptr<NetBackend>> openTap(EventLoop& loop, const NetConfig& net, unsigned queues) {
  network::Json settings = network::Json::parse(net.port, nullptr, false);
  auto text = settings.is_object() ? settings.find("vhost") : settings.end();
  auto vhost = text != settings.end() && text->is_string() ? vhostUseFrom(text->get<std::string>()) : std::nullopt;
  return openTapNet(loop, {net.tap, queues, vhost.value_or(VhostUse::automatic)});
}

}  // namespace

Status PciDevices::addNets(const MachineConfig& config, EventLoop& loop, GuestMemory& memory) {
  for (const NetConfig& net : config.nets) {
    UserNetOptions options = net.user;
    if (options.hostname.empty()) options.hostname = config.name;
    MacAddress mac = net.mac ? *net.mac : macFor(config.name, nets_.size());
    unsigned queues = net.queues != 0 ? net.queues : std::min(config.cpus, kMaxQueues);
    auto backend = !net.network.empty() ? openNetworkCard(loop, net, config.name, mac, queues)
                   : net.tap.empty()    ? openUserNet(loop, options)
                                        : openTap(loop, net, queues);
    if (!backend) return std::move(backend).error().context("--net");
    auto device = std::make_unique<virtio::NetDevice>(memory, loop, std::move(*backend), mac, queues);
    nets_.push_back(device.get());
    auto place =
        add(std::move(device), fmt::format("virtio-net {}", nets_.size() - 1), fmt::format("net{}", nets_.size() - 1));
    if (!place) return std::move(place).error();
    if (pc_) pc_->addBootDevice('n', place->path("ethernet") + "/ethernet-phy@0", std::nullopt);
  }
  return {};
}

bool PciDevices::usesVhost() const {
  return std::any_of(nets_.begin(), nets_.end(), [](const virtio::NetDevice* net) { return net->usesVhost(); });
}

std::vector<std::pair<std::string, std::uint64_t>> PciDevices::statistics() const {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  for (std::size_t i = 0; i < disks_.size(); ++i)
    all.emplace_back(fmt::format("disk{}.requests", i), disks_[i]->requests());
  for (std::size_t i = 0; i < nets_.size(); ++i) {
    std::uint64_t sent = 0, received = 0, lost = 0;
    for (unsigned pair = 0; pair < nets_[i]->pairs(); ++pair) {
      sent += nets_[i]->framesSent(pair);
      received += nets_[i]->framesReceived(pair);
      lost += nets_[i]->framesLost(pair);
    }
    all.emplace_back(fmt::format("net{}.sent", i), sent);
    all.emplace_back(fmt::format("net{}.received", i), received);
    all.emplace_back(fmt::format("net{}.lost", i), lost);
    for (unsigned pair = 0; pair < nets_[i]->pairs() && nets_[i]->pairs() > 1; ++pair) {
      all.emplace_back(fmt::format("net{}.queue{}.sent", i, pair), nets_[i]->framesSent(pair));
      all.emplace_back(fmt::format("net{}.queue{}.received", i, pair), nets_[i]->framesReceived(pair));
    }
  }
  return all;
}

}  // namespace lodge
