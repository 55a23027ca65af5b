// SPDX-License-Identifier: Apache-2.0
// All interrupt controllers and the PIT in KVM (Linux Documentation/virt/kvm/api.rst, 4.24 to 4.26, 4.52, 4.71).
#include <time.h>

#include "engine/kvm/abi.h"
#include "engine/kvm/chips.h"
#include "engine/kvm/vm.h"

namespace lodge::kvm {

namespace {

constexpr std::uint32_t kCascade = 2;

Error failed(const char* what) {
  return Error::fromErrno(errno, what);
}

std::int64_t monotonicNow() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

kvm_irqchip chipNumber(std::uint32_t id) {
  kvm_irqchip chip{};
  chip.chip_id = id;
  return chip;
}

kvm_irq_routing_entry pinRoute(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip.irqchip = chip;
  entry.u.irqchip.pin = pin;
  return entry;
}

}  // namespace

Status Vm::createChips() {
  if (call(vm_.get(), KVM_CREATE_IRQCHIP) != 0) return failed("KVM_CREATE_IRQCHIP");
  kvm_pit_config pit{};
  pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61, too
  if (call(vm_.get(), KVM_CREATE_PIT2, &pit) != 0) return failed("KVM_CREATE_PIT2");
  hasChips_ = true;
  std::lock_guard lock(routesMutex_);
  return storeRoutesLocked() ? Status{} : failed("KVM_SET_GSI_ROUTING");
}

// As a PC is wired: ISA interrupts reach both kinds of controllers, IRQ 0 at the I/O APIC's pin 2; the 8259As' IR2 is
// the cascade. KVM's PIT is at GSI 0.
std::vector<kvm_irq_routing_entry> Vm::pinRoutes() {
  constexpr std::uint32_t kIsa = 16;
  std::vector<kvm_irq_routing_entry> routes;
  for (std::uint32_t gsi = 0; gsi < x86::IoApicRegisters::kPins; ++gsi) {
    if (gsi == kCascade) continue;
    if (gsi < kIsa) routes.push_back(pinRoute(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8));
    routes.push_back(pinRoute(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi));
  }
  return routes;
}

Status Vm::writeChips(const x86::ChipRegisters& registers) {
  for (std::uint32_t id : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE}) {
    kvm_irqchip pic = chipNumber(id);
    toKvm(registers.pic[id], id == KVM_IRQCHIP_PIC_SLAVE, pic.chip.pic);
    if (call(vm_.get(), KVM_SET_IRQCHIP, &pic) != 0) return failed("KVM_SET_IRQCHIP (8259A)");
  }
  kvm_irqchip ioApic = chipNumber(KVM_IRQCHIP_IOAPIC);
  toKvm(registers.ioApic, ioApic.chip.ioapic);
  if (call(vm_.get(), KVM_SET_IRQCHIP, &ioApic) != 0) return failed("KVM_SET_IRQCHIP (I/O APIC)");
  kvm_pit_state2 pit{};
  toKvm(registers.pit, registers.pitIsSilent, pit);
  if (call(vm_.get(), KVM_SET_PIT2, &pit) != 0) return failed("KVM_SET_PIT2");
  return {};
}

// The PIT stops first, so that each of its ticks is in one place only.
Status Vm::readChips(x86::ChipRegisters& registers) {
  kvm_pit_state2 pit{};
  if (call(vm_.get(), KVM_GET_PIT2, &pit) != 0) return failed("KVM_GET_PIT2");
  fromKvm(pit, monotonicNow(), registers.pit);
  silencePit(true);
  for (std::uint32_t id : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE}) {
    kvm_irqchip pic = chipNumber(id);
    if (call(vm_.get(), KVM_GET_IRQCHIP, &pic) != 0) return failed("KVM_GET_IRQCHIP (8259A)");
    fromKvm(pic.chip.pic, registers.pic[id]);
  }
  kvm_irqchip ioApic = chipNumber(KVM_IRQCHIP_IOAPIC);
  if (call(vm_.get(), KVM_GET_IRQCHIP, &ioApic) != 0) return failed("KVM_GET_IRQCHIP (I/O APIC)");
  fromKvm(ioApic.chip.ioapic, registers.ioApic);
  // KVM_SET_IRQCHIP leaves what each source of a line says. One that fell meanwhile would hold it for the PIT, too.
  for (unsigned gsi = 0; gsi < x86::IoApicRegisters::kPins; ++gsi) {
    if (gsi != kCascade) setPin(gsi, false);
  }
  return {};
}

void Vm::setPin(unsigned gsi, bool level) {
  kvm_irq_level line{};
  line.irq = gsi;
  line.level = level;
  call(vm_.get(), KVM_IRQ_LINE, &line);
}

// Its counters begin anew whenever its state is set.
void Vm::silencePit(bool silent) {
  kvm_pit_state2 pit{};
  if (call(vm_.get(), KVM_GET_PIT2, &pit) != 0 || ((pit.flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0) == silent) return;
  pit.flags ^= KVM_PIT_FLAGS_HPET_LEGACY;
  call(vm_.get(), KVM_SET_PIT2, &pit);
}

}  // namespace lodge::kvm
