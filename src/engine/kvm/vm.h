// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"
#include "memory/mappings.h"
#include "x86/chip_registers.h"
#include "x86/cpu.h"

struct kvm_coalesced_mmio_ring;
struct kvm_dirty_gfn;
struct kvm_irq_routing_entry;
struct kvm_run;

namespace lodge::kvm {

/// What is used of KVM where it has it.
struct VmUses {
  bool events, dirtyRing, coalescing;
  GuestInterfaces interfaces{};
  /// All but what --trace host-without= takes away.
  static VmUses ofHost();
};

/// One virtual machine of the host's KVM: its capabilities and its memory slots, which follow GuestMemory's map.
class Vm {
 public:
  /// Errors: unsupported with what this KVM lacks; io.
  static Result<std::unique_ptr<Vm>> create(const char* device, GuestMemory& memory, Irqchip irqchip,
                                            VmUses uses = VmUses::ofHost());
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  int system() const { return system_.get(); }  ///< /dev/kvm
  int fd() const { return vm_.get(); }
  GuestMemory& memory() const { return memory_; }
  /// KVM_CHECK_EXTENSION's answer.
  int capability(unsigned long number) const;
  /// Bytes of a vCPU's shared page and what follows it.
  std::size_t runSize() const { return runSize_; }
  bool hasSmm() const { return hasSmm_; }
  /// Whether local APICs are KVM's (Irqchip::split, kKernelIrqchip).
  bool hasApics() const { return hasApics_; }
  /// Whether all interrupt controllers and the PIT are (kKernelIrqchip).
  bool hasChips() const { return hasChips_; }

  /// What Engine's functions of these names do, with KVM's local APICs. Any thread.
  bool sendMsi(const MsiMessage& message);
  void setLevelMessages(std::span<const MsiMessage> messages);
  bool setMsiEvent(int event, const MsiMessage* message);
  std::function<void(std::uint8_t vector)> onEoi;
  /// What Engine's functions of these names do, with KVM's chips; setPin(): setLine().
  Status writeChips(const x86::ChipRegisters& registers);
  Status readChips(x86::ChipRegisters& registers);
  void setPin(unsigned gsi, bool level);
  void silencePit(bool silent);
  /// Engine::watchStores() and unwatchStores(). Any thread.
  bool watchStores(std::uint64_t gpa, int event, bool watch);

  /// Makes KVM's memory slots what GuestMemory's map says now. Any thread. Errors: io.
  Status syncMemory();
  /// Hands the pages of video memory that vCPUs stored to since the last call to GuestMemory::noteStore(). Any thread.
  void collectVideoStores();

  /// A vCPU of this machine's: what KVM shares beside its page. From the first vCPU on; `environment` is where stores
  /// go that KVM has gathered. Errors: io.
  Status attach(int vcpu, kvm_run* run, x86::CpuEnvironment& environment);
  void detach(int vcpu);
  /// Carries out the stores that KVM has gathered, in order. After each exit, before anything else; any thread.
  void drainStores();
  bool hasDirtyRings() const { return dirtyRingBytes_ != 0; }
  /// What KVM alone knows of the guest, beside its registers.
  GuestInterfaces interfaces() const { return uses_.interfaces; }
  /// What `measure` found the first time: it is the same for all vCPUs, so that their time stamp counters agree.
  std::optional<std::uint64_t> tscAhead(const std::function<std::optional<std::uint64_t>()>& measure);

 private:
  Vm(GuestMemory& memory, VmUses uses) : uses_(uses), memory_(memory) {}
  Status open(const char* device, Irqchip irqchip);
  Status requireCapabilities() const;
  Status takeApics(Irqchip irqchip);
  Status createChips();
  static std::vector<kvm_irq_routing_entry> pinRoutes();
  Status interceptMsrs();
  Status syncSpace(std::uint32_t space, bool smm);
  bool storeRoutesLocked();
  bool setIrqfd(int event, std::uint32_t gsi, bool on);
  void openDirtyRings();
  void gatherStores();
  void collectLocked();
  void harvestRingsLocked();
  Status setSlot(std::uint32_t slot, const MemoryMapping& mapping, std::uint64_t length);

  const VmUses uses_;
  GuestMemory& memory_;
  UniqueFd system_, vm_;
  std::size_t runSize_ = 0;
  bool hasSmm_ = false, hasApics_ = false, hasChips_ = false, hasEvents_ = false;
  struct EventRoute {
    int event;  ///< -1: free
    MsiMessage message;
  };
  std::mutex routesMutex_;
  std::vector<MsiMessage> levelRoutes_;
  std::vector<EventRoute> eventRoutes_;  ///< by interrupt number, from kLevelRoutes on
  std::atomic<bool> routesRefused_{false};
  struct DirtyRing {
    int vcpu;
    kvm_dirty_gfn* entries;
    std::uint32_t next;
  };
  std::size_t dirtyRingBytes_ = 0;     ///< of a vCPU; 0: bitmaps tell
  std::vector<DirtyRing> dirtyRings_;  ///< under slotsMutex_
  std::mutex storesMutex_;
  int storesVcpu_ = -1;                                    ///< whose mapping `stores_` lies in
  std::atomic<kvm_coalesced_mmio_ring*> stores_{nullptr};  ///< what KVM has gathered; null: nothing is
  x86::CpuEnvironment* environment_ = nullptr;
  std::mutex tscMutex_;
  std::optional<std::uint64_t> tscAhead_;
  std::mutex slotsMutex_;
  /// By address space (1: system management mode) and slot number; an empty one is free.
  std::vector<std::optional<MemoryMapping>> slots_[2];
};

}  // namespace lodge::kvm
