// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/pci.h"
#include "machine/config.h"
#include "machine/pci_slots.h"
#include "machine/removable_drives.h"
#include "memory/guest_memory.h"
#include "state/snapshot.h"
#include "storage/ahci_controller.h"
#include "storage/nvme_controller.h"
#include "virtio/pci_transport.h"
#include "virtio/scsi.h"

namespace lodge {

/// What can be done about a disk that does not open, where the image library has nothing better to say.
Error withDiskHint(Error error);
/// Opens a drive's image; null for a CD-ROM drive without a medium.
Result<std::shared_ptr<Disk>> openDrive(const DriveConfig& options);

/// The disk controllers that are PCI functions with drives behind them: NVMe (one a disk), AHCI (as many as its drives
/// need) and a virtio SCSI host for all SCSI drives.
class PciStorage {
 public:
  struct Board {
    std::function<Result<PciSlots::Place>(PciFunction&, const std::string& name)> plug;  ///< PciSlots::plug()
    /// A drive to start from; see PcBoard::addBootDevice().
    std::function<void(char kind, std::string path, std::optional<unsigned> index)> boots;
    RemovableDrives& removable;
  };
  /// Errors: openDisk()'s, and of a bus without a free slot.
  Status open(const MachineConfig& config, GuestMemory& memory, const Board& board);

  /// As PciDevices'.
  int quiesce();
  bool isQuiet();
  void transfer(state::Snapshot& snapshot);
  void resume();

 private:
  Status addNvme(const DriveConfig& options, GuestMemory& memory, const Board& board);
  Status addAhci(const MachineConfig& config, std::size_t index, GuestMemory& memory, const Board& board);

  Status addScsi(const MachineConfig& config, GuestMemory& memory, const Board& board);

  std::vector<std::unique_ptr<NvmeController>> nvmes_;
  std::vector<std::unique_ptr<AhciController>> ahcis_;
  std::unique_ptr<virtio::PciTransport> scsi_;
  PciSlots::Place ahciPlace_;
  unsigned ahciPort_ = AhciController::kPorts;  ///< the next one
};

}  // namespace lodge
