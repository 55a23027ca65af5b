// SPDX-License-Identifier: Apache-2.0
// Local APICs in KVM, with the other interrupt controllers in user space (Linux Documentation/virt/kvm/api.rst, 4.71,
// 4.52, 7.5, 7.7).
#include <algorithm>

#include "base/log.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/capabilities.h"
#include "engine/kvm/vm.h"

namespace lodge::kvm {

namespace {

// Routes with these numbers are the level-triggered inputs of I/O APICs, whose EOIs KVM tells.
constexpr unsigned kLevelRoutes = 24;

}  // namespace

Status Vm::takeApics(Irqchip irqchip) {
  if (irqchip == Irqchip::user) return {};
  if (!hasSplitIrqchip(vm_.get())) {
    if (irqchip == Irqchip::best) return {};
    return Error(ErrorKind::unsupported, "--irqchip split: this host's KVM cannot")
        .withHint("leave --irqchip out, or use --irqchip user");
  }
  kvm_enable_cap split{};
  split.cap = KVM_CAP_SPLIT_IRQCHIP;
  split.args[0] = kLevelRoutes;
  if (call(vm_.get(), KVM_ENABLE_CAP, &split) != 0) return Error::fromErrno(errno, "enable KVM_CAP_SPLIT_IRQCHIP");
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
  RoutingList list(std::min<std::size_t>(messages.size(), kLevelRoutes));
  for (std::uint32_t n = 0; n < list.count(); ++n) {
    kvm_irq_routing_entry& route = list.entries()[n];
    route = {};
    route.gsi = n;
    route.type = KVM_IRQ_ROUTING_MSI;
    route.u.msi.address_lo = static_cast<std::uint32_t>(messages[n].address);
    route.u.msi.address_hi = static_cast<std::uint32_t>(messages[n].address >> 32);
    route.u.msi.data = messages[n].data;
  }
  if (call(vm_.get(), kSetGsiRouting, list.data()) != 0)
    log(LogLevel::error, "{}", Error::fromErrno(errno, "KVM_SET_GSI_ROUTING").message());
}

}  // namespace lodge::kvm
