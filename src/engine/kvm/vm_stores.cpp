// SPDX-License-Identifier: Apache-2.0
// What KVM notes of guests' stores: pages of video memory (dirty rings, or bitmaps where there are none), and stores to
// devices that it gathers until the next exit (Linux Documentation/virt/kvm/api.rst, 8.29, 4.43, 4.116).
#include <sys/mman.h>

#include <atomic>
#include <bit>
#include <cstring>

#include "base/trace.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/vm.h"

namespace lodge::kvm {

namespace {

constexpr std::uint32_t kRingEntries = 4096;
constexpr std::uint32_t kDirty = 1, kReset = 2;  // KVM_DIRTY_GFN_F_*

// The VGA's window, to which text and planar pictures are written, and the port that drivers write to for a delay.
constexpr std::uint64_t kWindow = 0xa0000;
constexpr std::uint32_t kWindowBytes = 0x20000;
constexpr std::uint64_t kDelayPort = 0x80;

/// struct kvm_coalesced_mmio_ring: two indices, then entries to the end of the page.
constexpr std::size_t kStoresHeader = 8, kMostStores = (kPageSize - kStoresHeader) / sizeof(kvm_coalesced_mmio);

std::uint32_t load(const std::uint32_t& word) {
  return std::atomic_ref(const_cast<std::uint32_t&>(word)).load(std::memory_order_acquire);
}

void carryOut(const kvm_coalesced_mmio& store, x86::CpuEnvironment& environment) {
  unsigned length = std::min<unsigned>(store.len, sizeof store.data);
  // Devices know powers of two.
  bool whole = std::has_single_bit(length) && store.phys_addr % length == 0;
  unsigned size = whole ? length : 1;
  for (unsigned at = 0; at < length; at += size) {
    std::uint64_t value = 0;
    std::memcpy(&value, store.data + at, size);
    if (store.pio != 0)
      environment.writePort(static_cast<std::uint16_t>(store.phys_addr + at), size, value);
    else
      environment.writeMmio(Gpa{store.phys_addr + at}, size, value);
  }
}

}  // namespace

VmUses VmUses::ofHost() {
  return {.events = !isWithheld(HostFeature::kvmEvents),
          .dirtyRing = !isWithheld(HostFeature::kvmDirtyRing),
          .coalescing = !isWithheld(HostFeature::kvmCoalescing)};
}

/// Before the first vCPU. KVM then has no bitmaps any more.
void Vm::openDirtyRings() {
  constexpr std::size_t kBytes = kRingEntries * sizeof(kvm_dirty_gfn);
  if (!uses_.dirtyRing || memory_.videoSize() == 0) return;
  if (capability(KVM_CAP_DIRTY_LOG_RING) < static_cast<int>(kBytes)) return;
  kvm_enable_cap ring{};
  ring.cap = KVM_CAP_DIRTY_LOG_RING;
  ring.args[0] = kBytes;
  if (call(vm_.get(), KVM_ENABLE_CAP, &ring) == 0) dirtyRingBytes_ = kBytes;
}

Status Vm::attach(int vcpu, kvm_run* run, x86::CpuEnvironment& environment) {
  if (dirtyRingBytes_ != 0) {
    void* ring = ::mmap(nullptr, dirtyRingBytes_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu,
                        KVM_DIRTY_LOG_PAGE_OFFSET * static_cast<off_t>(kPageSize));
    if (ring == MAP_FAILED) return Error::fromErrno(errno, "map a vCPU's dirty ring");
    std::lock_guard lock(slotsMutex_);
    dirtyRings_.push_back({vcpu, static_cast<kvm_dirty_gfn*>(ring), 0});
  }
  std::lock_guard lock(storesMutex_);
  int page = capability(KVM_CAP_COALESCED_MMIO);
  if (!uses_.coalescing || storesVcpu_ >= 0 || page <= 0) return {};
  if (runSize_ < (static_cast<std::size_t>(page) + 1) * kPageSize) return {};
  storesVcpu_ = vcpu;
  environment_ = &environment;
  gatherStores();
  stores_ = reinterpret_cast<kvm_coalesced_mmio_ring*>(reinterpret_cast<std::byte*>(run) +
                                                       static_cast<std::size_t>(page) * kPageSize);
  return {};
}

/// Where KVM refuses, stores are exits, as they were.
void Vm::gatherStores() {
  kvm_coalesced_mmio_zone zone{};
  zone.addr = kWindow;
  zone.size = kWindowBytes;
  if (memory_.videoSize() != 0) call(vm_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
  zone.addr = kDelayPort;
  zone.size = 1;
  zone.pio = 1;
  if (capability(KVM_CAP_COALESCED_PIO) > 0) call(vm_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
}

void Vm::detach(int vcpu) {
  {
    std::lock_guard lock(storesMutex_);
    if (storesVcpu_ == vcpu) stores_ = nullptr;
  }
  std::lock_guard lock(slotsMutex_);
  std::erase_if(dirtyRings_, [&](const DirtyRing& ring) {
    if (ring.vcpu != vcpu) return false;
    ::munmap(ring.entries, dirtyRingBytes_);
    return true;
  });
}

// A store leaves the ring once the device has had it: whoever finds the ring empty finds all stores carried out.
void Vm::drainStores() {
  kvm_coalesced_mmio_ring* ring = stores_.load(std::memory_order_acquire);
  if (!ring || load(ring->first) == load(ring->last)) return;
  std::lock_guard lock(storesMutex_);
  ring = stores_;
  if (!ring) return;
  const auto* entries =
      reinterpret_cast<const kvm_coalesced_mmio*>(reinterpret_cast<const std::byte*>(ring) + kStoresHeader);
  for (std::uint32_t first = ring->first; first < kMostStores && first != load(ring->last);) {
    carryOut(entries[first], *environment_);
    first = (first + 1) % kMostStores;
    std::atomic_ref(ring->first).store(first, std::memory_order_release);
  }
}

void Vm::collectVideoStores() {
  drainStores();
  std::lock_guard lock(slotsMutex_);
  collectLocked();
}

void Vm::collectLocked() {
  if (dirtyRingBytes_ != 0) return harvestRingsLocked();
  for (std::size_t i = 0; i < slots_[0].size(); ++i) {
    const auto& slot = slots_[0][i];
    if (!slot || !slot->video) continue;
    std::vector<std::uint64_t> bits((slot->length / kPageSize + 63) / 64);
    kvm_dirty_log log{};
    log.slot = static_cast<std::uint32_t>(i);
    log.dirty_bitmap = bits.data();
    if (call(vm_.get(), KVM_GET_DIRTY_LOG, &log) != 0) continue;
    for (std::size_t word = 0; word < bits.size(); ++word) {
      for (std::uint64_t left = bits[word]; left != 0; left &= left - 1) {
        std::uint64_t page = word * 64 + static_cast<unsigned>(std::countr_zero(left));
        memory_.noteStore(slot->offset + page * kPageSize);
      }
    }
  }
}

void Vm::harvestRingsLocked() {
  std::vector<std::uint64_t> stored;
  bool any = false;
  for (DirtyRing& ring : dirtyRings_) {
    for (;; ++ring.next) {
      kvm_dirty_gfn& entry = ring.entries[ring.next % kRingEntries];
      if ((load(entry.flags) & (kDirty | kReset)) != kDirty) break;
      std::uint32_t space = entry.slot >> 16, number = entry.slot & 0xffff;
      if (space < 2 && number < slots_[space].size()) {
        const auto& slot = slots_[space][number];
        if (slot && entry.offset < slot->length / kPageSize) stored.push_back(slot->offset + entry.offset * kPageSize);
      }
      std::atomic_ref(entry.flags).store(kReset, std::memory_order_release);
      any = true;
    }
  }
  // KVM protects the pages again, and has the entries back. Told only then: who takes a page's note sees all stores
  // before it, and later ones are noted anew.
  if (any) call(vm_.get(), KVM_RESET_DIRTY_RINGS);
  for (std::uint64_t offset : stored) memory_.noteStore(offset);
}

}  // namespace lodge::kvm
