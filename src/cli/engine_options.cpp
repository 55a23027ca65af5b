// SPDX-License-Identifier: Apache-2.0
#include "cli/engine_options.h"

#include "memory/huge_file.h"

namespace lodge::cli {

std::vector<OptionSpec> engineOptionTable() {
  return {
      {.name = "engine",
       .letter = 'e',
       .value = "ENGINE",
       .help = "What executes guest code; 'lodge doctor' tells what auto chooses here and why.",
       .choices = {"auto", "translate", "interpret", "kvm"}},
      {.name = "irqchip",
       .value = "WHERE",
       .help = "Where the kvm engine has local APICs: in the kernel (split; what it does where KVM can), or in Lodge "
               "with all other interrupt controllers (user).",
       .choices = {"user", "split"}},
      {.name = "nested",
       .help =
           "The guest may run virtual machines by the processor's own means (VMX or SVM). Of the kvm engine, where the "
           "host's KVM allows it. While the guest does, the machine can be saved, and cannot go on on another engine. "
           "The same as ',nested' after --cpu's MODEL."},
      {.name = "hyperv",
       .help = "Offer the guest Hyper-V's interface, by which Windows keeps time, sends interrupts and waits at less "
               "cost. Of the kvm engine, on which the machine then stays. The same as ',hyperv' after --cpu's MODEL."},
      {.name = "hugepages",
       .help = "The guest's memory is made of pages of 2M that the host has set aside for that (vm.nr_hugepages; see "
               "'lodge doctor'). Of the kvm engine, on which the machine then stays."},
  };
}

void readEngineOptions(const Invocation& invocation, MachineConfig& config) {
  config.engine = invocation.value("engine", config.engine);
  std::string irqchip = invocation.value("irqchip");
  config.irqchip = irqchip == "user" ? Irqchip::user : irqchip == "split" ? Irqchip::split : Irqchip::best;
  config.cpuModel = invocation.value("cpu", config.cpuModel);
  for (const char* interface : {"nested", "hyperv"}) {
    if (invocation.has(interface)) config.cpuModel += std::string(",") + interface;
  }
  if (invocation.has("hugepages")) takeReservedHugePages();
}

}  // namespace lodge::cli
