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

Status EngineRequests::checkLeaving(std::string_view doing) const {
  const char* what = interfaces.nested   ? "the state of nested virtualization (--nested)"
                     : interfaces.hyperv ? "the state of Hyper-V's interface (--hyperv)"
                                         : nullptr;
  if (!what) return {};
  return Error(ErrorKind::unsupported,
               fmt::format("the machine cannot be {}: {} is the host's KVM's alone", doing, what))
      .withHint("it goes on; machines that are to be saved or moved are started without that option");
}

}  // namespace lodge
