// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/tsc_rate.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>

#include <string>

#include "base/file.h"
#include "engine/kvm/abi.h"

namespace lodge::kvm {

Status judgeTscRate(const x86::CpuModel& model, bool scales) {
  if (scales || model.tscScale().isIdentity()) return {};
  auto megahertz = [](std::uint64_t hz) { return static_cast<double>(hz) / 1e6; };
  return Error(
             ErrorKind::unsupported,
             fmt::format("the guest's time stamp counter runs at {:.3f} MHz and the host's at {:.3f}, and this host's "
                         "KVM cannot scale it (KVM_CAP_TSC_CONTROL)",
                         megahertz(model.tscHz), megahertz(model.hostTscHz)))
      .withHint("use --engine translate");
}

Status keepsTscRate(const x86::CpuModel& model, const char* device) {
  if (model.tscScale().isIdentity()) return {};
  UniqueFd system(::open(device, O_RDWR | O_CLOEXEC));
  if (!system) return Error::fromErrno(errno, std::string("open ") + device);
  return judgeTscRate(model, call(system.get(), KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0);
}

x86::TscScale scaleOfKvm(std::uint64_t guestKhz, std::uint64_t hostKhz, x86::CpuVendor vendor) {
  if (x86::TscScale::between(guestKhz, hostKhz).isIdentity()) return {};
  unsigned bits = vendor == x86::CpuVendor::amd ? 32 : x86::TscScale::kFractionBits;
  using Wide = unsigned __int128;
  auto factor = static_cast<std::uint64_t>((Wide{guestKhz} << bits) / hostKhz);
  return x86::TscScale::between(factor, std::uint64_t{1} << bits);
}

}  // namespace lodge::kvm
