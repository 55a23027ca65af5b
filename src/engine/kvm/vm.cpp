// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/vm.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>

#include "engine/kvm/abi.h"
#include "engine/kvm/capabilities.h"

namespace lodge::kvm {

namespace {

// Intel's processors without "unrestricted guest" run real mode with the help of four pages of the guest's address
// space, where no board has anything (src/machine/layout.h).
constexpr unsigned long kIdentityMap = 0xfeff'c000, kTss = 0xfeff'd000;

Error failed(const char* what) {
  return Error::fromErrno(errno, what);
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const char* device, GuestMemory& memory, Irqchip irqchip, VmUses uses) {
  auto vm = std::unique_ptr<Vm>(new Vm(memory, uses));
  if (Status opened = vm->open(device, irqchip); !opened) return std::move(opened).error();
  return vm;
}

int Vm::capability(unsigned long number) const {
  return std::max(0, call(vm_.get(), KVM_CHECK_EXTENSION, number));
}

Status Vm::open(const char* device, Irqchip irqchip) {
  system_.reset(::open(device, O_RDWR | O_CLOEXEC));
  if (!system_) return Error::fromErrno(errno, std::string("open ") + device);
  vm_.reset(call(system_.get(), KVM_CREATE_VM));
  if (!vm_) return failed("KVM_CREATE_VM");
  if (Status s = requireCapabilities(); !s) return s;
  int size = call(system_.get(), KVM_GET_VCPU_MMAP_SIZE);
  if (size < static_cast<int>(sizeof(kvm_run))) return failed("KVM_GET_VCPU_MMAP_SIZE");
  runSize_ = static_cast<std::size_t>(size);
  std::uint64_t identityMap = kIdentityMap;
  if (capability(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) {
    if (call(vm_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identityMap) != 0) return failed("KVM_SET_IDENTITY_MAP_ADDR");
  }
  if (capability(KVM_CAP_SET_TSS_ADDR) > 0 && call(vm_.get(), KVM_SET_TSS_ADDR, kTss) != 0)
    return failed("KVM_SET_TSS_ADDR");
  hasSmm_ = capability(KVM_CAP_X86_SMM) > 0 && capability(KVM_CAP_MULTI_ADDRESS_SPACE) >= 2;
  hasEvents_ = capability(KVM_CAP_IOEVENTFD) > 0 && capability(KVM_CAP_IRQFD) > 0 && uses_.events;
  // Each first touch of a page is an exit. Where the host's shmem_enabled says "advise", guest memory then comes in
  // huge pages; else this changes nothing.
  // Not while memory is still being loaded: before Linux 6.4 a huge page may fill what is not there yet with zeroes.
  if (!memory_.isLoading()) {
    for (std::byte* view : {memory_.cpuRw(), memory_.deviceView()})
      ::madvise(view, memory_.backingSize(), MADV_HUGEPAGE);
  }
  if (Status s = takeApics(irqchip); !s) return s;
  if (Status s = interceptMsrs(); !s) return s;
  openDirtyRings();
  // Also in user mode, where KVM would give the guest #UD (Linux 5.15).
  kvm_enable_cap emulation{};
  emulation.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE;
  emulation.args[0] = 1;
  if (capability(KVM_CAP_EXIT_ON_EMULATION_FAILURE) > 0 && call(vm_.get(), KVM_ENABLE_CAP, &emulation) != 0)
    return failed("enable KVM_CAP_EXIT_ON_EMULATION_FAILURE");
  return syncMemory();
}

Status Vm::requireCapabilities() const {
  for (const Capability& needed : knownCapabilities()) {
    if (!needed.needed || capability(needed.number) > 0) continue;
    return Error(ErrorKind::unsupported, "this host's KVM has no KVM_CAP_" + std::string(needed.name))
        .withHint("use a kernel of version 5.14 or newer, or --engine translate");
  }
  return {};
}

// The processor's own registers, which guests use often, are KVM's; all others are Lodge's (x86/msr.h), so that they
// read the same on every engine.
Status Vm::interceptMsrs() {
  kvm_enable_cap enable{};
  enable.cap = KVM_CAP_X86_USER_SPACE_MSR;
  enable.args[0] = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
  if (call(vm_.get(), KVM_ENABLE_CAP, &enable) != 0) return failed("enable KVM_CAP_X86_USER_SPACE_MSR");
  // A bit a register from `base` on; 1: KVM's.
  std::uint8_t speculation[1] = {0b11};  // SPEC_CTRL, PRED_CMD
  std::uint8_t one[1] = {0b1};
  std::uint8_t sysenter[1] = {0b111};
  std::uint8_t syscall[1] = {0b1'1111};  // EFER, STAR, LSTAR, CSTAR, SFMASK
  std::uint8_t bases[1] = {0b1111};      // FS, GS, KERNEL_GS, TSC_AUX
  constexpr std::uint32_t kRead = KVM_MSR_FILTER_READ, kBoth = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_DENY;
  filter.ranges[0] = {kBoth, 2, 0x48, speculation};
  filter.ranges[1] = {kRead, 1, 0x10, one};
  filter.ranges[2] = {kBoth, 3, 0x174, sysenter};
  filter.ranges[3] = {kBoth, 1, 0x277, one};
  filter.ranges[4] = {kBoth, 5, 0xc000'0080, syscall};
  filter.ranges[5] = {kBoth, 4, 0xc000'0100, bases};
  filter.ranges[6] = {kBoth, 1, msr::stealTime, one};
  unsigned next = 7;
  auto leave = [&](std::uint32_t access, std::uint32_t count, std::uint32_t first, std::uint8_t* bits) {
    filter.ranges[next++] = {access, count, first, bits};
  };
  if (hasApics_) {  // x2APIC registers pass every filter
    leave(kBoth, 1, msr::apicBase, one);
    leave(kBoth, 1, msr::tscDeadline, one);
    leave(kBoth, 1, msr::paravirtEoi, one);
  }
  std::uint8_t svm[1] = {0b1001}, vmx[3] = {0xff, 0xff, 0b11};  // VM_CR, VM_HSAVE_PA; VMX's capabilities
  if (uses_.interfaces.nested) {
    leave(kBoth, 4, 0xc001'0114, svm);
    leave(kBoth, 1, 0xc000'0104, one);  // TSC_RATIO
    leave(kRead, 18, 0x480, vmx);
    leave(kRead, 1, msr::featureControl, one);
  }
  // Guest's identity, hypercall page, VP index; run time; reference counter and TSC page, frequencies; APIC registers;
  // the synthetic interrupt controller's, its sources and timers (22 bytes); what a guest says when it crashes.
  std::uint8_t hyperv[23] = {0b111, 0, 1, 0, 0b1111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0b1111};
  std::uint8_t crash[1] = {0b11'1111};
  if (hasApics_) {
    hyperv[16] = 0b1'1111;
    hyperv[18] = hyperv[19] = hyperv[22] = 0xff;
  }
  if (uses_.interfaces.hyperv) {
    leave(kBoth, 184, 0x4000'0000, hyperv);
    leave(kBoth, 6, 0x4000'0100, crash);
  }
  if (call(vm_.get(), KVM_X86_SET_MSR_FILTER, &filter) != 0) return failed("KVM_X86_SET_MSR_FILTER");
  return {};
}

std::optional<std::uint64_t> Vm::tscAhead(const std::function<std::optional<std::uint64_t>()>& measure) {
  std::lock_guard lock(tscMutex_);
  if (!tscAhead_) tscAhead_ = measure();
  return tscAhead_;
}

Status Vm::setSlot(std::uint32_t slot, const MemoryMapping& mapping, std::uint64_t length) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = (mapping.writable ? 0u : KVM_MEM_READONLY) | (mapping.video ? KVM_MEM_LOG_DIRTY_PAGES : 0u);
  region.guest_phys_addr = mapping.gpa;
  region.memory_size = length;
  region.userspace_addr = reinterpret_cast<std::uint64_t>(memory_.cpuRw() + mapping.offset);
  if (call(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) return failed("KVM_SET_USER_MEMORY_REGION");
  return {};
}

Status Vm::syncMemory() {
  std::lock_guard lock(slotsMutex_);
  if (Status s = syncSpace(0, false); !s) return s;
  return hasSmm_ ? syncSpace(1, true) : Status{};
}

Status Vm::syncSpace(std::uint32_t space, bool smm) {
  auto& slots = slots_[space];
  auto wanted = memoryMappings(memory_, smm);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (!slots[i] || std::find(wanted.begin(), wanted.end(), *slots[i]) != wanted.end()) continue;
    if (slots[i]->video) collectLocked();
    if (Status s = setSlot(static_cast<std::uint32_t>(i) | space << 16, *slots[i], 0); !s) return s;
    slots[i].reset();
  }
  for (const MemoryMapping& mapping : wanted) {
    if (std::find(slots.begin(), slots.end(), std::optional(mapping)) != slots.end()) continue;
    auto free = std::find(slots.begin(), slots.end(), std::nullopt);
    if (free == slots.end()) free = slots.insert(free, std::nullopt);
    auto number = static_cast<std::uint32_t>(free - slots.begin());
    if (Status s = setSlot(number | space << 16, mapping, mapping.length); !s) return s;
    *free = mapping;
  }
  return {};
}

}  // namespace lodge::kvm
