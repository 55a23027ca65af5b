// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "device/debug_console.h"
#include "device/dma_controller.h"
#include "device/ich9_lpc.h"
#include "device/pam_bridge.h"
#include "device/parallel_flash.h"
#include "device/pci.h"
#include "device/piix3.h"
#include "device/piix4_pm.h"
#include "display/vga.h"
#include "machine/chipset.h"
#include "machine/config.h"
#include "machine/flash_files.h"
#include "machine/pc_display.h"
#include "machine/removable_drives.h"
#include "storage/floppy_controller.h"
#include "storage/ide_controller.h"

namespace lodge {

using FlashFiles = std::vector<std::unique_ptr<FlashFile>>;

/// The guest memory of a `pc` board: RAM, the firmware's image just below 4 GiB, and memory for the display. `flash`
/// becomes the files of its flash chips, whose contents lie at the end of the firmware's memory, the first one last.
/// Errors: notFound (no firmware; hint), invalidArgument (an image of an impossible size), FlashFile's and
/// GuestMemory's.
Result<std::unique_ptr<GuestMemory>> createPcMemory(const MachineConfig& config, FlashFiles& flash);

/// What the `pc` board has beyond the chipset of all boards: host bridge, ISA bridge, power management, firmware
/// interfaces.
class PcBoard {
 public:
  static Result<std::unique_ptr<PcBoard>> create(const MachineConfig& config, EventLoop& loop, GuestMemory& memory,
                                                 IoBus& ports, IoBus& mmio, Chipset& chipset, RemovableDrives& drives,
                                                 FlashFiles flash);

  PciFunction& bridge() { return *bridge_; }
  /// Where PCI interrupt `line` ((slot + pin) % 4) goes: the I/O APIC, and by the ISA bridge's routes the 8259As.
  InterruptLine& pciInterrupt(unsigned line) { return interrupts_.at(line); }
  /// Null: the board has no graphics.
  PcDisplay* display() { return dark_ ? nullptr : &display_; }
  Status plug(PciHost& host);
  /// A device that firmware can start from, for the boot order: its kind's letter and its path in the form of Open
  /// Firmware, as SeaBIOS and OVMF read it.
  void addBootDevice(char kind, std::string path, std::optional<unsigned> index) {
    bootDevices_.push_back({kind, std::move(path), index});
  }
  /// After all devices are there: tables, boot order and the like for fw_cfg.
  Status describeToFirmware(const MachineConfig& config, const GuestMemory& memory);
  void reset();
  /// As PciDevices::quiesce() and transfer().
  int quiesce() {
    int error = ide_.quiesce();
    int other = floppy_ ? floppy_->quiesce() : 0;
    return error != 0 ? error : other;
  }
  bool isQuiet() { return ide_.isQuiet() && (!floppy_ || floppy_->isQuiet()); }
  void transfer(state::Snapshot& snapshot);

 private:
  struct Fork : InterruptLine {
    void set(bool level) override {
      ioApic->set(level);
      pirq->set(level);
    }
    InterruptLine* ioApic = nullptr;
    InterruptLine* pirq = nullptr;
  };

  PcBoard(const MachineConfig& config, GuestMemory& memory, IoBus& ports, Chipset& chipset);
  Status plugPorts(IoBus& ports, IoBus& mmio);
  Status addDrives(const MachineConfig& config, RemovableDrives& removable);
  Status addFloppies(const MachineConfig& config, RemovableDrives& removable);
  Status addNetworkRom();
  Status addFlash(GuestMemory& memory, IoBus& mmio, FlashFiles files);
  std::string bootOrder(const std::string& letters) const;
  void makeChips(const MachineConfig& config, GuestMemory& memory, IoBus& ports);

  Chipset& chipset_;
  bool q35_, dark_;  ///< dark: without graphics
  PciHost* host_ = nullptr;
  std::unique_ptr<PamBridge> bridge_;
  std::unique_ptr<Piix3> isa_;
  std::unique_ptr<Piix4Pm> power_;  ///< of the i440FX board
  std::unique_ptr<Ich9Apm> apm_;    ///< of the Q35 board
  DebugConsole debug_;
  IdeController ide_;
  DmaController dma_;
  std::unique_ptr<FloppyController> floppy_;
  Vga vga_;
  PcDisplay display_;
  std::array<Fork, 4> interrupts_;
  FlashFiles flashFiles_;
  std::vector<std::unique_ptr<ParallelFlash>> flash_;
  struct BootDevice {
    char kind;
    std::string path;
    std::optional<unsigned> index;
  };
  std::vector<BootDevice> bootDevices_;
};

}  // namespace lodge
