// SPDX-License-Identifier: Apache-2.0
#include "machine/pci_storage.h"

#include <fmt/format.h>

#include <algorithm>

#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/scsi_cdrom.h"
#include "storage/scsi_disk.h"

namespace lodge {

Error withDiskHint(Error error) {
  if (!error.hint().empty()) return error;
  return std::move(error).withHint(error.kind() == ErrorKind::permissionDenied
                                       ? "give the disk as FILE,readonly, or let it be written"
                                       : "check the path given to --disk");
}

Result<std::shared_ptr<Disk>> openDrive(const DriveConfig& options) {
  if (options.path.empty()) return std::shared_ptr<Disk>();
  auto opened = openDisk(options);
  if (!opened && options.cdrom) {
    Error error = std::move(opened).error().context("--cdrom");
    // What is wrong with the file itself has a hint for disks.
    if (!error.hint().empty() && error.kind() != ErrorKind::invalidArgument) return error;
    return std::move(error).withHint("name an image of a CD-ROM (ISO 9660) that can be read, or 'none'");
  }
  if (!opened) return withDiskHint(std::move(opened).error()).context("--disk");
  return std::shared_ptr<Disk>(std::move(*opened));
}

Status PciStorage::open(const MachineConfig& config, GuestMemory& memory, const Board& board) {
  for (std::size_t index = 0; index < config.disks.size(); ++index) {
    Status added;
    if (config.disks[index].bus == DriveBus::nvme) added = addNvme(config.disks[index], memory, board);
    if (config.disks[index].bus == DriveBus::ahci) added = addAhci(config, index, memory, board);
    if (!added) return added;
  }
  return addScsi(config, memory, board);
}

bool PciStorage::isQuiet() {
  auto isQuietOne = [](auto& device) { return device->isQuiet(); };
  return std::ranges::all_of(nvmes_, isQuietOne) && std::ranges::all_of(ahcis_, isQuietOne) &&
         (!scsi_ || scsi_->device().isQuiet());
}

int PciStorage::quiesce() {
  int error = 0;
  auto quiet = [&error](auto& device) {
    if (int failed = device.quiesce(); error == 0) error = failed;
  };
  for (auto& nvme : nvmes_) quiet(*nvme);
  for (auto& ahci : ahcis_) quiet(*ahci);
  if (scsi_) quiet(scsi_->device());
  return error;
}

void PciStorage::transfer(state::Snapshot& snapshot) {
  auto section = [&](PciFunction& f) { snapshot.section(f.name(), 2, [&](state::Archive& a) { f.transfer(a); }); };
  for (auto& nvme : nvmes_) section(*nvme);
  for (auto& ahci : ahcis_) section(*ahci);
  if (scsi_) section(*scsi_);
}

void PciStorage::resume() {
  if (scsi_) scsi_->resume();
}

// One host with a logical unit for each drive; its slot must be known before its drives can be started from.
Status PciStorage::addScsi(const MachineConfig& config, GuestMemory& memory, const Board& board) {
  constexpr unsigned kMaxQueues = 4;
  auto device = std::make_unique<virtio::ScsiDevice>(memory, std::min(config.cpus, kMaxQueues));
  virtio::ScsiDevice& host = *device;
  std::vector<const DriveConfig*> drives;
  for (std::size_t index = 0; index < config.disks.size(); ++index) {
    const DriveConfig& options = config.disks[index];
    if (options.bus != DriveBus::scsi) continue;
    auto disk = openDrive(options);
    if (!disk) return std::move(disk).error();
    if (options.cdrom) {
      auto drive = std::make_unique<ScsiCdrom>(std::move(*disk));
      board.removable.add(
          removableDriveName(config, index), true,
          [d = drive.get()](std::shared_ptr<Disk> medium, bool force) { return d->change(std::move(medium), force); });
      host.add(std::move(drive));
    } else {
      host.add(std::make_unique<ScsiDisk>(std::move(*disk), fmt::format("scsi{}", drives.size())));
    }
    drives.push_back(&options);
  }
  if (drives.empty()) return {};
  scsi_ = std::make_unique<virtio::PciTransport>(std::move(device), "virtio-scsi");
  auto place = board.plug(*scsi_, "scsi");
  if (!place) return std::move(place).error();
  for (std::size_t lun = 0; lun < drives.size(); ++lun) {
    board.boots(drives[lun]->cdrom ? 'd' : 'c', fmt::format("{}/channel@0/disk@0,{:x}", place->path("scsi"), lun),
                drives[lun]->bootIndex);
  }
  return {};
}

Status PciStorage::addNvme(const DriveConfig& options, GuestMemory& memory, const Board& board) {
  auto disk = openDrive(options);
  if (!disk) return std::move(disk).error();
  nvmes_.push_back(std::make_unique<NvmeController>(memory, std::move(*disk), fmt::format("nvme{}", nvmes_.size())));
  auto place = board.plug(*nvmes_.back(), fmt::format("nvme{}", nvmes_.size() - 1));
  if (!place) return std::move(place).error();
  board.boots('c', place->path("pci8086,5845") + "/namespace@1,0", options.bootIndex);
  return {};
}

Status PciStorage::addAhci(const MachineConfig& config, std::size_t index, GuestMemory& memory, const Board& board) {
  const DriveConfig& options = config.disks[index];
  auto disk = openDrive(options);
  if (!disk) return std::move(disk).error();
  if (ahciPort_ == AhciController::kPorts) {
    ahcis_.push_back(std::make_unique<AhciController>(memory, fmt::format("ahci {}", ahcis_.size())));
    auto place = board.plug(*ahcis_.back(), fmt::format("ahci{}", ahcis_.size() - 1));
    if (!place) return std::move(place).error();
    ahciPlace_ = std::move(*place);
    ahciPort_ = 0;
  }
  AhciPort& port = ahcis_.back()->port(ahciPort_);
  if (options.cdrom) {
    port.attach(std::make_unique<AtapiDrive>(std::move(*disk)), nullptr);
    board.removable.add(removableDriveName(config, index), true, [&port](std::shared_ptr<Disk> medium, bool force) {
      return port.withDrive([&](IdeDrive& d) { return static_cast<AtapiDrive&>(d).change(std::move(medium), force); });
    });
  } else {
    port.attach(std::make_unique<AtaDisk>(*disk, fmt::format("sata{}", index), true), *disk);
  }
  board.boots(options.cdrom ? 'd' : 'c', fmt::format("{}/drive@{}/disk@0", ahciPlace_.path("pci8086,2922"), ahciPort_),
              options.bootIndex);
  ++ahciPort_;
  return {};
}

}  // namespace lodge
