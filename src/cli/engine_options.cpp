// SPDX-License-Identifier: Apache-2.0
#include "cli/engine_options.h"

#include "engine/chip_keeper.h"
#include "memory/huge_file.h"

namespace lodge::cli {

OptionSpec irqchipOption() {
  return {.name = "irqchip",
          .value = "WHERE",
          .help =
              "Where the kvm engine has interrupt controllers: local APICs in the kernel and the others in Lodge "
              "(split; what it does where KVM can), all of them and the PIT in the kernel (kernel), or all in "
              "Lodge (user).",
          .choices = {"user", "split", "kernel"}};
}

Irqchip readIrqchip(const Invocation& invocation) {
  std::string where = invocation.value("irqchip");
  if (where == "user") return Irqchip::user;
  if (where == "split") return Irqchip::split;
  return where == "kernel" ? kKernelIrqchip : Irqchip::best;
}

std::vector<OptionSpec> engineOptionTable() {
  return {
      {.name = "engine",
       .letter = 'e',
       .value = "ENGINE",
       .help = "What executes guest code; 'lodge doctor' tells what auto chooses here and why.",
       .choices = {"auto", "translate", "interpret", "kvm"}},
      irqchipOption(),
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
  config.irqchip = readIrqchip(invocation);
  config.cpuModel = invocation.value("cpu", config.cpuModel);
  for (const char* interface : {"nested", "hyperv"}) {
    if (invocation.has(interface)) config.cpuModel += std::string(",") + interface;
  }
  if (invocation.has("hugepages")) takeReservedHugePages();
}

}  // namespace lodge::cli
