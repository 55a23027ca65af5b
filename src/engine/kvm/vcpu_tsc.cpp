// SPDX-License-Identifier: Apache-2.0
// The guest's time stamp counter: its rate, and where it stands.
#include <fmt/format.h>

#include <limits>
#include <optional>

#include "engine/kvm/abi.h"
#include "engine/kvm/tsc_rate.h"
#include "engine/kvm/vcpu.h"
#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::kvm {

namespace {
constexpr std::uint32_t kTsc = 0x10;
}

/// Before anything else that KVM is told of the vCPU. KVM counts in kHz, and by the rate of the host's counter as the
/// kernel knows it.
Status KvmVcpu::setTscRate() {
  const x86::CpuModel& model = *cpu_.model;
  if (model.tscScale().isIdentity()) return {};
  if (Status keeps = judgeTscRate(model, vm_.capability(KVM_CAP_TSC_CONTROL) > 0); !keeps) return keeps;
  int host = call(fd_.get(), KVM_GET_TSC_KHZ);
  std::uint64_t khz = (model.tscHz + 500) / 1000;
  if (call(fd_.get(), KVM_SET_TSC_KHZ, khz) != 0) {
    return Error(
               ErrorKind::unsupported,
               fmt::format("KVM does not give the guest a time stamp counter of {} kHz; the host's has {}", khz, host))
        .withHint("use --engine translate");
  }
  cpu_.tscScale = host > 0 ? scaleOfKvm(khz, static_cast<std::uint64_t>(host), model.vendor) : model.tscScale();
  return {};
}

bool KvmVcpu::setTscOffset() {
  std::uint64_t deadline = vm_.hasApics() && tscOffset_ != cpu_.state.tscOffset ? readMsrOfKvm(msr::tscDeadline) : 0;
  if (!storeTscOffset()) return false;
  return deadline == 0 || writeMsrOfKvm(msr::tscDeadline, deadline) || failCall("set the TSC deadline");
}

// From Linux 5.16 on exactly; before, by the counter's value, which costs the time from one read to the other.
bool KvmVcpu::storeTscOffset() {
  tscOffset_ = cpu_.state.tscOffset;
  std::optional<std::uint64_t> offset = tscOffset_;
  if (!cpu_.tscScale.isIdentity()) {
    auto ahead = vm_.tscAhead([this] { return measureTscAhead(); });
    offset = ahead ? std::optional(tscOffset_ - *ahead) : std::nullopt;
  }
  if (offset && tscOffsetAttribute(KVM_SET_DEVICE_ATTR, *offset)) return true;
  MsrList list(1);
  list.entries()[0] = {kTsc, 0, x86::readTsc(cpu_)};
  return call(fd_.get(), kSetMsrs, list.data()) == 1 || failCall("set the TSC");
}

bool KvmVcpu::tscOffsetAttribute(unsigned long request, std::uint64_t& offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<std::uint64_t>(&offset);
  return call(fd_.get(), request, &attribute) == 0;
}

/// How far KVM's scaled count of the host's counter is ahead of Cpu::tscScale's: both are rounded, and the counter may
/// have run for months. To some hundred ticks; the same for all vCPUs. Empty: KVM does not tell.
std::optional<std::uint64_t> KvmVcpu::measureTscAhead() {
  constexpr int kTries = 16;
  std::uint64_t offset = 0, ahead = 0, shortest = std::numeric_limits<std::uint64_t>::max();
  if (!tscOffsetAttribute(KVM_GET_DEVICE_ATTR, offset)) return std::nullopt;
  for (int n = 0; n < kTries; ++n) {
    MsrList list(1);
    list.entries()[0] = {kTsc, 0, 0};
    std::uint64_t before = __builtin_ia32_rdtsc();
    if (call(fd_.get(), kGetMsrs, list.data()) != 1) return std::nullopt;
    std::uint64_t took = __builtin_ia32_rdtsc() - before;
    if (took >= shortest) continue;
    shortest = took;
    ahead = list.entries()[0].data - offset - cpu_.tscScale(before + took / 2);
  }
  return ahead;
}

}  // namespace lodge::kvm
