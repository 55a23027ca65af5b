// SPDX-License-Identifier: Apache-2.0
#include "cli/described_run.h"

#include "base/text.h"
#include "cli/machine_description.h"
#include "cli/net_option.h"
#include "control/machine_name.h"

namespace lodge::cli {

namespace {

constexpr std::size_t kIdeDrives = 4;

void addDrives(const DescribedMachine& described, MachineConfig& config) {
  bool pc = config.board == Board::pc;
  std::size_t cds = pc ? std::min(described.cds.size(), kIdeDrives - 1) : 0, ide = 0;
  for (std::size_t i = 0; i < described.machine.disks.size(); ++i) {
    DriveConfig drive;
    drive.path = described.machine.disks[i].file;
    drive.format = described.formats[i];
    if (pc && ide + cds < kIdeDrives) {
      drive.bus = DriveBus::ide;
      ++ide;
    }
    config.disks.push_back(std::move(drive));
  }
  for (std::size_t i = 0; i < cds; ++i) {
    DriveConfig drive;
    drive.path = described.cds[i];
    drive.format = "raw";
    drive.readOnly = drive.cdrom = true;
    drive.bus = DriveBus::ide;
    config.disks.push_back(std::move(drive));
  }
}

}  // namespace

Status applyDescription(const std::string& path, bool nets, MachineConfig& config) {
  auto described = readDescription(path);
  if (!described) return std::move(described).error().context("--machine");
  const image::ovf::Machine& machine = described->machine;
  if (machine.efi && config.kernel.empty() && config.bios.empty()) {
    return Error(ErrorKind::unsupported, "--machine " + inQuotes(path) + ": the machine is started by UEFI firmware")
        .withHint("start its kernel with --kernel, or name UEFI firmware with --bios");
  }
  if (config.name.empty() && control::checkMachineName(machine.name)) config.name = machine.name;
  config.cpus = machine.cpus;
  if (machine.memory != 0) config.memory = alignDown(machine.memory, kPageSize);
  addDrives(*described, config);
  for (const image::ovf::Nic& nic : machine.nics) {
    if (!nets) break;
    auto net = parseNet(nic.mac.empty() ? "user" : "user,mac=" + nic.mac);
    if (!net) return std::move(net).error().context("--machine " + inQuotes(path));
    if (*net) config.nets.push_back(std::move(**net));
  }
  return {};
}

}  // namespace lodge::cli
