// SPDX-License-Identifier: Apache-2.0
// Local APICs in KVM, with the other interrupt controllers in user space or in KVM, too (vm_chips.cpp; Linux
// Documentation/virt/kvm/api.rst, 4.71, 4.52, 7.5, 7.7).
#include <algorithm>

#include "base/log.h"
#include "engine/chip_keeper.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/capabilities.h"
#include "engine/kvm/vm.h"

namespace lodge::kvm {

namespace {

// Routes with these numbers are the level-triggered inputs of I/O APICs, whose EOIs KVM tells; or lines to KVM's own
// controllers.
constexpr unsigned kLevelRoutes = 24;
/// Of devices' messages. KVM takes 4096 in all.
constexpr std::size_t kEventRoutes = 1024;

}  // namespace

Status Vm::takeApics(Irqchip irqchip) {
  if (irqchip == Irqchip::user) return {};
  if (!hasIrqchip(vm_.get(), irqchip)) {
    if (irqchip == Irqchip::best) return {};
    bool all = irqchip == kKernelIrqchip;
    return Error(ErrorKind::unsupported,
                 std::string("--irqchip ") + (all ? "kernel" : "split") + ": this host's KVM cannot")
        .withHint(std::string("leave --irqchip out, or use --irqchip ") + (all ? "split" : "user"));
  }
  if (irqchip == kKernelIrqchip) {
    if (Status created = createChips(); !created) return created;
  } else {
    kvm_enable_cap split{};
    split.cap = KVM_CAP_SPLIT_IRQCHIP;
    split.args[0] = kLevelRoutes;
    if (call(vm_.get(), KVM_ENABLE_CAP, &split) != 0) return Error::fromErrno(errno, "enable KVM_CAP_SPLIT_IRQCHIP");
  }
  kvm_enable_cap wide{};
  wide.cap = KVM_CAP_X2APIC_API;
  wide.args[0] = KVM_X2APIC_API_USE_32BIT_IDS;
  if (call(vm_.get(), KVM_ENABLE_CAP, &wide) != 0) return Error::fromErrno(errno, "enable KVM_CAP_X2APIC_API");
  hasApics_ = true;
  return {};
}

bool Vm::sendMsi(const MsiMessage& message) {
  kvm_msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(message.address);
  msi.address_hi = static_cast<std::uint32_t>(message.address >> 32);
  msi.data = message.data;
  return call(vm_.get(), KVM_SIGNAL_MSI, &msi) > 0;
}

void Vm::setLevelMessages(std::span<const MsiMessage> messages) {
  if (hasChips_) return;  // the I/O APIC is KVM's
  std::lock_guard lock(routesMutex_);
  levelRoutes_.assign(messages.begin(),
                      messages.begin() + std::min<std::ptrdiff_t>(std::ssize(messages), kLevelRoutes));
  storeRoutesLocked();
}

/// KVM takes the whole table at once.
bool Vm::storeRoutesLocked() {
  auto pins = hasChips_ ? pinRoutes() : std::vector<kvm_irq_routing_entry>();
  RoutingList list(pins.size() + levelRoutes_.size() + eventRoutes_.size());
  kvm_irq_routing_entry* entry = std::ranges::copy(pins, list.entries()).out;
  auto add = [&](std::size_t gsi, const MsiMessage& message) {
    *entry = {};
    entry->gsi = static_cast<std::uint32_t>(gsi);
    entry->type = KVM_IRQ_ROUTING_MSI;
    entry->u.msi.address_lo = static_cast<std::uint32_t>(message.address);
    entry->u.msi.address_hi = static_cast<std::uint32_t>(message.address >> 32);
    entry->u.msi.data = message.data;
    ++entry;
  };
  for (std::size_t n = 0; n < levelRoutes_.size(); ++n) add(n, levelRoutes_[n]);
  for (std::size_t n = 0; n < eventRoutes_.size(); ++n) {
    if (eventRoutes_[n].event >= 0) add(kLevelRoutes + n, eventRoutes_[n].message);
  }
  list.setCount(static_cast<std::uint32_t>(entry - list.entries()));
  if (call(vm_.get(), kSetGsiRouting, list.data()) == 0) return true;
  if (!routesRefused_.exchange(true))  // the guest may do it again
    log(LogLevel::error, "{}", Error::fromErrno(errno, "KVM_SET_GSI_ROUTING").message());
  return false;
}

bool Vm::setIrqfd(int event, std::uint32_t gsi, bool on) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(event);
  irqfd.gsi = gsi;
  irqfd.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN;
  return call(vm_.get(), KVM_IRQFD, &irqfd) == 0;
}

bool Vm::setMsiEvent(int event, const MsiMessage* message) {
  std::lock_guard lock(routesMutex_);
  auto at = std::ranges::find(eventRoutes_, event, &EventRoute::event);
  auto gsi = [&] { return kLevelRoutes + static_cast<std::uint32_t>(at - eventRoutes_.begin()); };
  if (at != eventRoutes_.end()) {
    setIrqfd(event, gsi(), false);  // comes back when what it has sent has arrived
    at->event = -1;
  }
  if (!message || !hasApics_ || !hasEvents_) return false;
  at = std::ranges::find(eventRoutes_, -1, &EventRoute::event);
  if (at == eventRoutes_.end()) {
    if (eventRoutes_.size() >= kEventRoutes) return false;
    at = eventRoutes_.insert(at, EventRoute{});
  }
  *at = {event, *message};
  if (storeRoutesLocked() && setIrqfd(event, gsi(), true)) return true;
  at->event = -1;
  return false;
}

bool Vm::watchStores(std::uint64_t gpa, int event, bool watch) {
  if (!hasEvents_) return false;
  kvm_ioeventfd bell{};
  bell.addr = gpa;
  bell.len = 2;
  bell.fd = event;
  bell.flags = watch ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;
  return call(vm_.get(), KVM_IOEVENTFD, &bell) == 0;
}

}  // namespace lodge::kvm
