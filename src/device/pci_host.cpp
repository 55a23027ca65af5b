// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include "base/log.h"
#include "base/units.h"
#include "device/pci_function.h"
#include "device/pcie_port.h"

namespace lodge {

namespace {
constexpr std::uint16_t kConfigPorts = 0xcf8;
constexpr std::uint32_t kConfigEnable = 0x8000'0000;
constexpr std::uint64_t kEcamBytesPerBus = 1_MiB;
constexpr std::uint64_t kSmallBar = 16_MiB;

/// A range that BAR addresses are handed out of, lowest first, each aligned to its size.
struct Window {
  std::uint64_t next, end;

  std::optional<std::uint64_t> take(std::uint64_t size) {
    std::uint64_t base = alignUp(next, size);
    if (base < next || base >= end || size > end - base) return std::nullopt;
    next = base + size;
    return base;
  }
};
}  // namespace

struct PciHost::Implementation : PciBackbone {
  /// Ports 0xcf8..0xcff (PCI Local Bus 3.0, 3.2.2.3.2).
  struct Ports : IoDevice {
    explicit Ports(Implementation& h) : host(h) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override { return host.readPorts(offset, size); }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      host.writePorts(offset, size, value);
    }
    Implementation& host;
  };
  /// The memory-mapped configuration space (PCI Express 3.0, 7.2.2).
  struct Ecam : IoDevice {
    explicit Ecam(Implementation& h) : host(h) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override {
      if (size == 8) return read(offset, 4) | read(offset + 4, 4) << 32;
      PciFunction* function = host.function(static_cast<unsigned>(offset >> 12));
      return function ? function->readConfig(offset & 0xfff, size) : ~std::uint64_t{0} >> (64 - 8 * size);
    }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      if (size == 8) {
        write(offset, 4, value & 0xffff'ffff);
        return write(offset + 4, 4, value >> 32);
      }
      PciFunction* function = host.function(static_cast<unsigned>(offset >> 12));
      if (function) function->writeConfig(offset & 0xfff, size, static_cast<std::uint32_t>(value));
    }
    Implementation& host;
  };

  explicit Implementation(const Setup& s)
      : setup(s),
        ioWindow{kIoAssignBase, kIoWindowEnd},
        window32{s.window32Base, s.window32Base + s.window32Size},
        window64{s.window64Base, s.window64Base + s.window64Size} {}

  /// `address`: bus number << 8 | device number << 3 | function number.
  PciFunction* function(unsigned address) const {
    unsigned bus = address >> 8, deviceFunction = address & 0xff;
    if (bus == 0) return functions[deviceFunction];
    for (PciFunction* port : expressPorts) {
      std::lock_guard lock(port->impl_->state);
      if (port->impl_->config[pci::kSecondaryBus] == bus) return deviceFunction == 0 ? port->impl_->behind : nullptr;
    }
    return nullptr;
  }

  PciFunction* addressed(std::uint32_t value) const {
    return (value & kConfigEnable) != 0 ? function((value >> 8) & 0xffff) : nullptr;
  }

  std::uint64_t readPorts(std::uint64_t offset, unsigned size) const {
    std::uint64_t ones = ~std::uint64_t{0} >> (64 - 8 * size);
    std::uint32_t current = address.load(std::memory_order_relaxed);
    if (offset == 0 && size == 4) return current;
    if (offset == 1 && size == 1 && setup.resetControl) return setup.resetControl->read(0, 1);
    PciFunction* target = offset >= 4 ? addressed(current) : nullptr;
    return target ? target->readConfig((current & 0xfc) + static_cast<unsigned>(offset - 4), size) : ones;
  }

  void writePorts(std::uint64_t offset, unsigned size, std::uint64_t value) {
    std::uint32_t current = address.load(std::memory_order_relaxed);
    if (offset == 0 && size == 4) {
      address.store(static_cast<std::uint32_t>(value) & 0x80ff'fffc, std::memory_order_relaxed);
    } else if (offset == 1 && size == 1 && setup.resetControl) {
      setup.resetControl->write(0, 1, value);
    } else if (PciFunction* target = offset >= 4 ? addressed(current) : nullptr) {
      target->writeConfig((current & 0xfc) + static_cast<unsigned>(offset - 4), size,
                          static_cast<std::uint32_t>(value));
    }
  }

  bool inWindow(const PciFunction::Implementation::Bar& bar, std::uint64_t base) const {
    auto inside = [&](std::uint64_t start, std::uint64_t length) {
      return base >= start && base - start < length && bar.size <= length - (base - start);
    };
    if (bar.isIo()) return inside(kIoWindowBase, kIoWindowEnd - kIoWindowBase);
    return inside(setup.window32Base, setup.window32Size) || inside(setup.window64Base, setup.window64Size);
  }

  void updateDecoding(PciFunction& changed) override {
    std::lock_guard lock(decoding);
    unmapMovedLocked(changed);
    if (PciFunction* behind = changed.impl_->behind) unmapMovedLocked(*behind);
    // What was in the way of another BAR may have gone, so all are looked at again.
    forEach([this](PciFunction& f) { mapMissingLocked(f); });
  }

  template <class Do>
  void forEach(Do&& act) const {
    for (PciFunction* f : functions) {
      if (f) act(*f);
    }
    for (PciFunction* port : expressPorts) {
      if (port->impl_->behind) act(*port->impl_->behind);
    }
  }

  static std::optional<std::uint64_t> addressOf(PciFunction& f, unsigned slot) {
    std::lock_guard lock(f.impl_->state);
    return f.impl_->barAddressLocked(slot);
  }

  std::optional<std::uint64_t> wantedLocked(PciFunction& f, unsigned slot) const {
    auto base = addressOf(f, slot);
    const auto& bar = f.impl_->bars[slot];
    if (!base || !inWindow(bar, *base)) return std::nullopt;
    PciFunction* port = f.impl_->portBefore;
    if (!port) return base;
    std::lock_guard lock(port->impl_->state);
    return port->impl_->forwardsLocked(bar.isIo(), *base, bar.size) ? base : std::nullopt;
  }

  void unmapMovedLocked(PciFunction& f) {
    for (unsigned slot = 0; slot < 6; ++slot) {
      auto& bar = f.impl_->bars[slot];
      if (bar.size == 0 || !bar.mapped || bar.mapped == wantedLocked(f, slot)) continue;
      busOf(bar).remove(*bar.mapped);
      bar.mapped.reset();
      f.barPlaced(slot, std::nullopt);
    }
  }

  void mapMissingLocked(PciFunction& f) {
    for (unsigned slot = 0; slot < 6; ++slot) {
      auto& bar = f.impl_->bars[slot];
      if (bar.size == 0 || bar.mapped) continue;
      auto wanted = wantedLocked(f, slot);
      if (!wanted) continue;
      Status added = busOf(bar).add(*wanted, bar.size, *bar.handler, fmt::format("{} BAR {}", f.name(), slot));
      if (added) {
        bar.mapped = wanted;
        f.barPlaced(slot, wanted);
      } else if (!bar.clashLogged) {
        bar.clashLogged = true;
        log(LogLevel::warning, "the guest placed a BAR where it cannot answer: {}", added.error().message());
      }
    }
  }

  IoBus& busOf(const PciFunction::Implementation::Bar& bar) const { return bar.isIo() ? setup.ports : setup.memory; }

  void driveIntx(unsigned slot, bool level) override {
    unsigned line = slot % 4;  // pin INTA of each slot
    std::lock_guard lock(intx);
    asserted[line] += level ? 1 : -1;
    if (setup.intx[line]) setup.intx[line]->set(asserted[line] > 0);
  }

  std::optional<std::uint64_t> allocate(const PciFunction::Implementation::Bar& bar) {
    if (bar.isIo()) return ioWindow.take(bar.size);
    if (!bar.is64()) return window32.take(bar.size);
    std::optional<std::uint64_t> base;
    if (bar.size <= kSmallBar) base = window32.take(bar.size);
    if (!base) base = window64.take(bar.size);
    return base;
  }

  /// What firmware leaves behind: BARs placed, everything enabled.
  void configure(PciFunction& f) {
    if (setup.firmwareAssigns) return;
    auto& i = *f.impl_;
    {
      std::lock_guard lock(i.state);
      for (unsigned slot = 0; slot < 6; ++slot) {
        if (i.bars[slot].size != 0) i.setBarLocked(slot, i.bars[slot].assigned);
      }
    }
    f.writeConfig(pci::kCommand, 2, pci::kCommandIo | pci::kCommandMemory | pci::kCommandMaster);
  }

  void connect(PciFunction& f, unsigned slot) {
    f.impl_->slot = slot;
    f.impl_->host = this;
    if (f.impl_->msix) f.impl_->msix->setSink(&setup.msi);
  }

  Setup setup;
  Ports ports{*this};
  Ecam ecam{*this};
  PciFunction plainBridge{
      {.vendor = 0x8086, .device = 0x0d57, .revision = 0, .classCode = 0x060000, .subsystemVendor = 0, .subsystem = 0},
      "PCI host bridge"};
  PciFunction& bridge{setup.bridge ? *setup.bridge : plainBridge};
  std::array<PciFunction*, 256> functions{&bridge};  // of bus 0, by device number << 3 | function number
  std::vector<PciFunction*> expressPorts;            // of them, those with a bus behind them
  std::uint64_t ecamBytes = kEcamBytesPerBus;
  std::atomic<std::uint32_t> address{0};
  std::mutex decoding;
  Window ioWindow, window32, window64;
  std::mutex intx;
  std::array<int, 4> asserted{};
};

PciHost::PciHost(std::unique_ptr<Implementation> impl) : impl_(std::move(impl)) {}

PciHost::~PciHost() {
  impl_->setup.ports.remove(kConfigPorts);
  placeEcam(std::nullopt);
}

void PciHost::placeEcam(std::optional<std::uint64_t> base, unsigned buses) {
  std::lock_guard lock(impl_->decoding);
  std::uint64_t bytes = buses * kEcamBytesPerBus;
  if (base.value_or(0) == impl_->setup.ecamBase && (!base || bytes == impl_->ecamBytes)) return;
  if (impl_->setup.ecamBase != 0) impl_->setup.memory.remove(impl_->setup.ecamBase);
  impl_->setup.ecamBase = 0;
  if (!base) return;
  Status added = impl_->setup.memory.add(*base, bytes, impl_->ecam, "PCI ECAM");
  if (added) {
    impl_->setup.ecamBase = *base;
    impl_->ecamBytes = bytes;
  } else {
    log(LogLevel::warning, "PCI configuration space placed where it cannot answer: {}", added.error().message());
  }
}

Result<std::unique_ptr<PciHost>> PciHost::create(const Setup& setup) {
  auto impl = std::make_unique<Implementation>(setup);
  if (Status s = setup.ports.add(kConfigPorts, 8, impl->ports, "PCI configuration mechanism 1"); !s)
    return std::move(s).error();
  if (setup.ecamBase != 0) {
    if (Status s = setup.memory.add(setup.ecamBase, kEcamBytesPerBus, impl->ecam, "PCI ECAM"); !s) {
      setup.ports.remove(kConfigPorts);
      return std::move(s).error();
    }
  }
  return std::unique_ptr<PciHost>(new PciHost(std::move(impl)));
}

Status PciHost::plug(unsigned slot, PciFunction& function, unsigned functionNumber) {
  if (slot == 0 || slot > 31 || functionNumber > 7) {
    return Error(ErrorKind::invalidArgument,
                 fmt::format("PCI slot {}.{} for {}: slots are 1 to 31", slot, functionNumber, function.name()));
  }
  PciFunction*& place = impl_->functions[slot << 3 | functionNumber];
  if (PciFunction* other = place) {
    return Error(ErrorKind::alreadyExists,
                 fmt::format("PCI slot {} for {}: taken by {}", slot, function.name(), other->name()));
  }
  auto& i = *function.impl_;
  for (unsigned number = 0; number < 6; ++number) {
    auto& bar = i.bars[number];
    if (bar.size == 0 || impl_->setup.firmwareAssigns) continue;
    auto base = impl_->allocate(bar);
    if (!base) {
      return Error(ErrorKind::outOfMemory, fmt::format("place BAR {} of {} ({} bytes): the PCI window is full", number,
                                                       function.name(), bar.size));
    }
    bar.assigned = *base;
  }
  impl_->connect(function, slot);
  place = &function;
  if (PciFunction* first = impl_->functions[slot << 3]; first && functionNumber != 0) {
    constexpr std::uint8_t kMultifunction = 0x80;
    first->impl_->config[pci::kHeaderType] |= kMultifunction;
  }
  impl_->configure(function);
  return {};
}

Status PciHost::plugPort(unsigned slot, PciePort& port, PciFunction* behind) {
  if (!impl_->setup.firmwareAssigns)
    return Error(ErrorKind::unsupported, fmt::format("{}: nobody would set its bus numbers", port.name()));
  if (Status s = plug(slot, port); !s) return s;
  impl_->expressPorts.push_back(&port);
  if (!behind) return {};
  makeExpressEndpoint(*behind);
  port.impl_->behind = behind;
  behind->impl_->portBefore = &port;
  impl_->connect(*behind, slot);
  return {};
}

void PciHost::transfer(state::Archive& a) {
  a(impl_->address);
}

void PciHost::reset() {
  impl_->address = 0;
  impl_->forEach([](PciFunction& f) { f.reset(); });
  for (PciFunction* f : impl_->functions) {
    if (f && f != &impl_->bridge) impl_->configure(*f);
  }
}

}  // namespace lodge
