// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"
#include "memory/mappings.h"

namespace lodge::kvm {

/// One virtual machine of the host's KVM: its capabilities and its memory slots, which follow GuestMemory's map.
class Vm {
 public:
  /// Errors: unsupported with what this KVM lacks; io.
  static Result<std::unique_ptr<Vm>> create(const char* device, GuestMemory& memory, Irqchip irqchip);
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
  /// Whether local APICs are KVM's (Irqchip::split).
  bool hasApics() const { return hasApics_; }

  /// What Engine's functions of these names do, with KVM's local APICs. Any thread.
  bool sendMsi(const MsiMessage& message);
  void setLevelMessages(std::span<const MsiMessage> messages);
  std::function<void(std::uint8_t vector)> onEoi;

  /// Makes KVM's memory slots what GuestMemory's map says now. Any thread. Errors: io.
  Status syncMemory();
  /// Hands the pages of video memory that vCPUs stored to since the last call to GuestMemory::noteStore(). Any thread.
  void collectVideoStores();

 private:
  explicit Vm(GuestMemory& memory) : memory_(memory) {}
  Status open(const char* device, Irqchip irqchip);
  Status requireCapabilities() const;
  Status takeApics(Irqchip irqchip);
  Status interceptMsrs();
  Status syncSpace(std::uint32_t space, bool smm);
  Status setSlot(std::uint32_t slot, const MemoryMapping& mapping, std::uint64_t length);

  GuestMemory& memory_;
  UniqueFd system_, vm_;
  std::size_t runSize_ = 0;
  bool hasSmm_ = false, hasApics_ = false;
  std::mutex slotsMutex_;
  /// By address space (1: system management mode) and slot number; an empty one is free.
  std::vector<std::optional<MemoryMapping>> slots_[2];
};

}  // namespace lodge::kvm
