// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "machine/ide_places.h"
#include "machine/machine.h"
#include "machine/trace.h"

namespace lodge {

namespace {
constexpr unsigned kMaxCpus = 64;
constexpr std::uint64_t kMinMemory = 16_MiB;
constexpr std::size_t kMaxDisks = 20, kMaxNets = 8;

Status validateFirmware(const MachineConfig& config) {
  bool uefi = config.firmware == Firmware::uefi;
  if (!config.bios.empty() + uefi + !config.flash.empty() > 1) {
    return Error(ErrorKind::invalidArgument, "more than one kind of firmware")
        .withHint("give one of --bios FILE, --firmware uefi and --pflash FILE");
  }
  if (!uefi && (!config.uefiVars.empty() || config.secureBoot)) {
    return Error(ErrorKind::invalidArgument, "UEFI's settings with other firmware")
        .withHint("--uefi-vars and --secure-boot go with --firmware uefi");
  }
  if (config.secureBoot && !config.q35) {
    return Error(ErrorKind::unsupported, "Secure Boot on the pc board").withHint("choose --board q35");
  }
  if (config.flash.size() > 2) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} flash chips", config.flash.size()))
        .withHint("--pflash FILE is there for the firmware's code and for its variables: two at most");
  }
  return {};
}

Status validateBoard(const MachineConfig& config) {
  if (!config.pciePorts.empty() && !config.q35) {
    return Error(ErrorKind::invalidArgument, "--pcie-port: this board has no PCI Express")
        .withHint("choose --board q35");
  }
  for (const DriveConfig& drive : config.disks) {
    if (drive.cdrom && (drive.bus == DriveBus::nvme || drive.bus == DriveBus::virtio)) {
      return Error(ErrorKind::invalidArgument, "a CD-ROM drive on that bus")
          .withHint("--cdrom takes bus=ide, ahci or scsi");
    }
  }
  if (config.board == Board::micro) {
    if (config.kernel.empty()) {
      return Error(ErrorKind::invalidArgument, "no kernel given").withHint("name one with --kernel FILE");
    }
    bool ide = std::ranges::any_of(config.disks, [](const DriveConfig& d) { return d.bus == DriveBus::ide; });
    if (!config.floppies.empty()) {
      return Error(ErrorKind::invalidArgument, "the micro board has no floppy drives")
          .withHint("choose --board pc, and leave --kernel out");
    }
    bool firmware = !config.bios.empty() || !config.flash.empty() || config.firmware != Firmware::bios;
    if (!ide && !firmware) return {};
    return Error(ErrorKind::invalidArgument, ide ? "the micro board has no IDE" : "the micro board runs no firmware")
        .withHint("choose --board pc, and leave --kernel out");
  }
  if (!config.kernel.empty()) {
    return Error(ErrorKind::unsupported, "the pc board starts from its disks, not from --kernel")
        .withHint("choose --board micro for a kernel, or leave --kernel out");
  }
  if (Status s = validateFirmware(config); !s) return s;
  if (config.bootOrder.empty() || config.bootOrder.find_first_not_of("acdn") != std::string::npos) {
    return Error(ErrorKind::invalidArgument, "boot order " + inQuotes(config.bootOrder))
        .withHint("--boot takes the letters a (floppy drives), c (disks), d (CD-ROM drives) and n (network)");
  }
  if (config.floppies.size() > 2) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} floppy drives", config.floppies.size()))
        .withHint("--floppy may be given twice");
  }
  if (auto places = idePlaces(config); !places) return std::move(places).error();
  return {};
}
}  // namespace

Status validate(const MachineConfig& config) {
  if (config.cpus == 0 || config.cpus > kMaxCpus) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} CPUs", config.cpus))
        .withHint(fmt::format("--cpus takes 1 to {}", kMaxCpus));
  }
  if (config.memory < kMinMemory || config.memory > 1_TiB) {
    return Error(ErrorKind::invalidArgument, formatSize(config.memory) + " of memory")
        .withHint("--memory takes 16M to 1T");
  }
  if (config.memory % kPageSize != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} bytes of memory", config.memory))
        .withHint("--memory takes a multiple of 4K");
  }
  if (Status s = validateBoard(config); !s) return s;
  if (config.disks.size() > kMaxDisks) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} disks", config.disks.size()))
        .withHint(fmt::format("a machine takes up to {}", kMaxDisks));
  }
  if (config.nets.size() > kMaxNets) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} network cards", config.nets.size()))
        .withHint(fmt::format("a machine takes up to {}", kMaxNets));
  }
  return checkTrace(config.trace);
}

}  // namespace lodge
