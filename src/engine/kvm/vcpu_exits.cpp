// SPDX-License-Identifier: Apache-2.0
// What the guest did that KVM leaves to its user.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/interpret/interpreter.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/vcpu.h"
#include "x86/system.h"

namespace lodge::kvm {

/// KVM keeps the register, and refuses this value: #GP. (The x2APIC's registers, which no filter reaches, come out the
/// same way where the board has them.)
bool KvmVcpu::isRefusal() const {
  if (run_->msr.reason != KVM_MSR_EXIT_REASON_INVAL) return false;
  // Where the host counts no waiting (sched_info), the guest is told of none.
  if (run_->msr.index == msr::stealTime) return false;
  return vm_.hasApics() || run_->msr.index < 0x800 || run_->msr.index > 0x8ff;
}

bool KvmVcpu::handleExit() {
  std::uint32_t reason = run_->exit_reason;
  exits_[std::min<std::size_t>(reason, kExitReasons - 1)].fetch_add(1, std::memory_order_relaxed);
  switch (reason) {
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
      return true;
    case KVM_EXIT_DIRTY_RING_FULL:
      vm_.collectVideoStores();
      return true;
    case KVM_EXIT_IO:
      portAccess();
      return true;
    case KVM_EXIT_MMIO:
      memoryAccess();
      return true;
    case KVM_EXIT_X86_RDMSR:
      readMsr();
      return true;
    case KVM_EXIT_X86_WRMSR:
      writeMsr();
      return true;
    case KVM_EXIT_HLT:
      cpu_.state.activity = x86::Activity::halted;
      // An interrupt that came meanwhile: attend() looks again.
      cpu_.events.fetch_or(x86::event::interrupt, std::memory_order_relaxed);
      return true;
    case KVM_EXIT_IOAPIC_EOI:
      if (vm_.onEoi) vm_.onEoi(run_->eoi.vector);
      return true;
    case KVM_EXIT_HYPERV:
      hypervExit();
      return true;
    case KVM_EXIT_SYSTEM_EVENT:
      systemEvent();
      return true;
    case KVM_EXIT_SHUTDOWN:
      return false;
    case KVM_EXIT_FAIL_ENTRY:
      return fail(fmt::format("the processor refused to enter the guest (hardware reason {:#x})",
                              std::uint64_t{run_->fail_entry.hardware_entry_failure_reason}));
    case KVM_EXIT_INTERNAL_ERROR:
      return internalError();
    default:
      return fail(fmt::format("KVM_RUN came back with reason {}, which nobody asked for", reason));
  }
}

// An instruction that reaches a device, and that KVM's emulator does not know (vector and x87 ones): the interpreter
// does.
bool KvmVcpu::interpretOne() {
  if (!save()) return false;
  if (refuseNestedInstruction()) return true;
  if (!interpreter_) {
    auto owner = interpret::ContextOwner::create(cpu_);
    if (!owner) return fail("the interpreter: " + owner.error().message());
    interpreter_ = std::move(*owner);
  }
  count(kInterpreted);
  bool runs = interpret::step(cpu_);
  cpu_.parkFpu();
  return runs || cpu_.state.activity != x86::Activity::shutdown;
}

bool KvmVcpu::internalError() {
  if (run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) return interpretOne();
  return fail(fmt::format("KVM failed inside (suberror {})", std::uint32_t{run_->internal.suberror}));
}

void KvmVcpu::portAccess() {
  accessOpen_ = true;
  std::uint16_t port = run_->io.port;
  unsigned size = run_->io.size;
  auto* data = reinterpret_cast<std::byte*>(run_) + run_->io.data_offset;
  for (std::uint32_t i = 0; i < run_->io.count; ++i, data += size) {
    std::uint64_t value = 0;
    if (run_->io.direction == KVM_EXIT_IO_IN) {
      value = cpu_.environment->readPort(port, size);
      std::memcpy(data, &value, size);
    } else {
      std::memcpy(&value, data, size);
      cpu_.environment->writePort(port, size, value);
    }
  }
}

void KvmVcpu::memoryAccess() {
  accessOpen_ = true;
  std::uint64_t gpa = run_->mmio.phys_addr;
  unsigned length = std::min<unsigned>(run_->mmio.len, sizeof run_->mmio.data);
  // Devices know powers of two.
  for (unsigned done = 0; done < length;) {
    unsigned size = 1;
    while (size * 2 <= length - done && (gpa + done) % (size * 2) == 0) size *= 2;
    if (done == 0 && std::has_single_bit(length)) size = length;
    std::uint64_t value = 0;
    if (run_->mmio.is_write != 0) {
      std::memcpy(&value, run_->mmio.data + done, size);
      cpu_.environment->writeMmio(Gpa{gpa + done}, size, value);
    } else {
      value = cpu_.environment->readMmio(Gpa{gpa + done}, size);
      std::memcpy(run_->mmio.data + done, &value, size);
    }
    done += size;
  }
}

// KVM has checked the privilege level.
void KvmVcpu::readMsr() {
  accessOpen_ = true;
  std::uint64_t value = 0;
  cpu_.state.cpl = 0;
  bool good = !isRefusal() && x86::readMsr(cpu_, run_->msr.index, value);
  cpu_.exception.valid = false;
  run_->msr.data = value;
  run_->msr.error = !good;
}

void KvmVcpu::writeMsr() {
  accessOpen_ = true;
  cpu_.state.cpl = 0;
  stealTimeRefused_ = stealTimeRefused_ || run_->msr.index == msr::stealTime;
  bool good = !isRefusal() && x86::writeMsr(cpu_, run_->msr.index, run_->msr.data);
  cpu_.exception.valid = false;
  run_->msr.error = !good;
  if (cpu_.state.tscOffset != tscOffset_) setTscOffset();
}

}  // namespace lodge::kvm
