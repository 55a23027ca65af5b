// SPDX-License-Identifier: Apache-2.0
#include "machine/engine_requests.h"

#include <fmt/format.h>

#include "base/text.h"
#include "memory/huge_file.h"

namespace lodge {

Result<EngineRequests> EngineRequests::of(const MachineConfig& config) {
  EngineRequests requests;
  auto words = split(config.cpuModel, ',');
  if (!words.empty()) requests.cpuModel = words[0];
  for (std::size_t n = 1; n < words.size(); ++n) {
    if (words[n] == "nested") {
      requests.interfaces.nested = true;
    } else if (words[n] == "hyperv") {
      requests.interfaces.hyperv = true;
    } else {
      return Error(ErrorKind::invalidArgument, "CPU model " + inQuotes(config.cpuModel))
          .withHint("after the model's name there may be 'nested' and 'hyperv'");
    }
  }
  return requests;
}

Status EngineRequests::check(std::string_view engine) const {
  if (engine == "kvm") return {};
  const char* option = interfaces.nested          ? "--nested"
                       : interfaces.hyperv        ? "--hyperv"
                       : takesReservedHugePages() ? "--hugepages"
                                                  : nullptr;
  if (!option) return {};
  return Error(ErrorKind::unsupported, fmt::format("{}: engine {} cannot do that", option, engine))
      .withHint("it is the kvm engine's, for which see 'lodge doctor'; start the machine without it");
}

Status EngineRequests::checkMove(std::string_view engine, Virtualization used) const {
  EngineRequests others = *this;
  others.interfaces.nested = false;
  if (Status able = others.check(engine); !able || engine == "kvm" || used == Virtualization::none) return able;
  return Error(ErrorKind::unsupported,
               fmt::format("the guest uses {}, which engine {} does not have", nameOf(used), engine))
      .withHint("end its own guests and unload its hypervisor ('modprobe -r kvm_amd kvm_intel') before");
}

Status EngineRequests::applyMove(std::string_view engine, x86::CpuModel& model, Irqchip irqchip) const {
  if (engine == "kvm") return offerInterfaces(engine, model, interfaces, irqchip);
  model.eferSupported &= ~x86::efer::svme;
  model.cr4Supported &= ~kCr4Vmxe;
  return {};
}

}  // namespace lodge
