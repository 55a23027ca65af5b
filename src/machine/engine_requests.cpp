// SPDX-License-Identifier: Apache-2.0
#include "machine/engine_requests.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string_view>

#include "base/text.h"
#include "engine/choose.h"
#include "memory/huge_file.h"

namespace lodge {

namespace {

constexpr std::string_view kTscFrequency = "tsc-frequency=";

/// Hz as a number, perhaps with a fraction, and k, M or G for thousands, millions and billions; 0: it is none.
std::uint64_t frequencyOf(std::string_view text) {
  double number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc{}) return 0;
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double factor = unit.empty() ? 1 : unit == "k" || unit == "K" ? 1e3 : unit == "M" ? 1e6 : unit == "G" ? 1e9 : 0;
  double hz = number * factor;
  return hz >= 1 && hz < 1e15 ? static_cast<std::uint64_t>(std::llround(hz)) : 0;
}

}  // namespace

Result<EngineRequests> EngineRequests::of(const MachineConfig& config) {
  EngineRequests requests;
  auto words = split(config.cpuModel, ',');
  if (!words.empty()) requests.cpuModel = words[0];
  for (std::size_t n = 1; n < words.size(); ++n) {
    if (words[n] == "nested") {
      requests.interfaces.nested = true;
    } else if (words[n] == "hyperv") {
      requests.interfaces.hyperv = true;
    } else if (std::string_view word = words[n]; word.starts_with(kTscFrequency)) {
      requests.tscHz = frequencyOf(word.substr(kTscFrequency.size()));
      if (requests.tscHz >= x86::kLeastTscHz && requests.tscHz <= x86::kMostTscHz) continue;
      return Error(ErrorKind::invalidArgument, "CPU model " + inQuotes(config.cpuModel) + ": the rate in it")
          .withHint("'tsc-frequency=' takes Hz from 100M to 25.5G, as 2400000000, 2400M or 2.4G");
    } else {
      return Error(ErrorKind::invalidArgument, "CPU model " + inQuotes(config.cpuModel))
          .withHint("after the model's name there may be 'nested' and 'hyperv', and 'tsc-frequency=HZ'");
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

std::string EngineRequests::insteadOfKvm(bool saved) const {
  std::string other = enginesBuilt().translate ? "translate" : "interpret";
  Status able = saved ? checkMove(other, Virtualization::none) : check(other);
  return able ? other : std::string();
}

Status EngineRequests::applyMove(std::string_view engine, x86::CpuModel& model, Irqchip irqchip) const {
  if (engine == "kvm") return offerInterfaces(engine, model, interfaces, irqchip);
  model.eferSupported &= ~x86::efer::svme;
  model.cr4Supported &= ~kCr4Vmxe;
  return {};
}

}  // namespace lodge
