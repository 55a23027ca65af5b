// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/units.h"
#include "engine/irqchip.h"
#include "image/disk.h"
#include "net/backend.h"

namespace lodge {

inline constexpr unsigned kMostNetQueues = 8;

struct NetConfig {
  UserNetOptions user;
  std::string tap;                ///< name of a tap device, instead of the user network
  std::string network;            ///< name of a network (network/client.h), instead of both
  std::string port = "{}";        ///< the port's settings there: JSON (network/port.h), without name and mac
  std::optional<MacAddress> mac;  ///< derived from the machine's name if not given
  unsigned queues = 0;            ///< pairs of queues, 1 to kMostNetQueues; 0: one a CPU, 4 at most
};

enum class Board : std::uint8_t {
  micro,  ///< starts a kernel without firmware; virtio devices only
  pc,     ///< firmware, i440FX chipset, IDE, VGA: what any operating system knows
};

/// What a drive hangs on. IDE is the pc board's; the others are PCI devices of any board.
enum class DriveBus : std::uint8_t { virtio, ide, ahci, nvme, scsi };

/// A disk or a CD-ROM drive, and how the guest sees it.
struct DriveConfig : DiskOptions {
  DriveConfig() = default;
  DriveConfig(DiskOptions options) : DiskOptions(std::move(options)) {}  // NOLINT(google-explicit-constructor)
  DriveBus bus = DriveBus::virtio;
  std::optional<unsigned> unit{};       ///< of IDE: 2 * channel + device; see idePlaces()
  bool cdrom = false;                   ///< on IDE, AHCI or SCSI; no path: no medium
  std::optional<unsigned> bootIndex{};  ///< firmware starts from the lowest first, before all without one
};

/// A floppy drive of the pc board, with a raw image in it or (no path) without.
struct FloppyConfig {
  std::string path{};
  bool readOnly = false, snapshot = false;
};

enum class Firmware : std::uint8_t {
  bios,  ///< SeaBIOS, or MachineConfig::bios
  uefi,  ///< OVMF with a store of variables
};

/// A flash chip with firmware: a file of raw bytes.
struct FlashConfig {
  std::string path;
  bool readOnly = false;
  bool keep = true;  ///< changes go to the file; else they end with the machine, and the file is left alone
  std::string blank =
      {};  ///< what the file is made a copy of if it does not exist; or that is used where `path` is empty
};

/// The pc board's pointer. A guest without a driver for the tablet has the PS/2 mouse.
enum class Pointer : std::uint8_t {
  virtio,  ///< a virtio tablet
  usb,     ///< a USB tablet behind an xHCI controller
  ps2,     ///< the PS/2 mouse alone, which knows movements only
};

/// The pc board's graphics.
enum class Graphics : std::uint8_t {
  std,     ///< the VGA with its linear frame buffer
  none,    ///< not even the VGA: firmware talks to the first serial port
  virtio,  ///< and a virtio GPU, which has the screen once its driver shows something
};

/// Everything that makes a machine: what `lodge run` (and later the API) fills in. Checked by validate().
struct MachineConfig {
  std::string name;
  Board board = Board::micro;
  std::string bios;                      ///< path of the pc board's firmware image; empty: SeaBIOS as it is installed
  bool q35 = false;                      ///< the pc board has the Q35 and ICH9 instead of the i440FX and PIIX
  std::vector<std::string> pciePorts{};  ///< of q35: devices that are behind a PCI Express port each; see PciSlots
  Firmware firmware = Firmware::bios;
  std::string uefiVars;            ///< path of the file with UEFI variables; empty: they end with the machine
  bool secureBoot = false;         ///< of q35: UEFI firmware checks the signatures of what it starts
  std::vector<FlashConfig> flash;  ///< flash chips instead of `bios` and `firmware`: the first ends at 4 GiB
  /// Of the pc board: 'a' floppy drives, 'c' disks, 'd' CD-ROM drives, 'n' network cards (with iPXE as it is
  /// installed).
  std::string bootOrder = "cad";
  bool bootMenu = false;             ///< of the pc board: firmware lets the user choose
  std::string kernel;                ///< path
  std::vector<std::string> initrds;  ///< the first is the initrd; for multiboot, each is a module "path arguments"
  std::string append;
  std::vector<DriveConfig> disks;
  std::vector<FloppyConfig> floppies;  ///< two at most
  std::vector<NetConfig> nets;
  unsigned cpus = 1;  ///< 1..16
  std::uint64_t memory = 1_GiB;
  std::string engine = "auto";
  Irqchip irqchip = Irqchip::best;  ///< of the kvm engine
  std::string cpuModel = "host";
  std::uint64_t codeCache = 128_MiB;
  Pointer pointer = Pointer::virtio;           ///< of the pc board
  Graphics graphics = Graphics::std;           ///< of the pc board
  bool noReboot = false;                       ///< a guest reset ends the machine
  std::optional<std::uint16_t> debugExitPort;  ///< isa-debug-exit
  bool testDevice = false;                     ///< ports 0xe0.. and the RAM window of CPU test kernels
  bool balloon = true;
  bool virtioConsole = false;  ///< input goes to a virtio console (hvc0), which learns the window's size, not to COM1
  std::string trace;
  std::string restoreFrom{};  ///< a state file (Machine::save()) that the machine goes on from

  /// Whether CPUs have system management mode: UEFI firmware may need it, SeaBIOS does without.
  bool smm() const { return q35 && (firmware == Firmware::uefi || !flash.empty()); }
};

/// How a machine ended.
enum class MachineEnd : std::uint8_t {
  poweredOff,     ///< exit status 0
  resetNoReboot,  ///< a reset with --no-reboot: exit status 0
  debugExit,      ///< isa-debug-exit: status (value << 1) | 1
  crashed,        ///< triple fault without reboot, or pvpanic
  saved,          ///< its state is in a file: exit status 0
  killed,         ///< quit from the monitor, lodge kill
};

}  // namespace lodge
