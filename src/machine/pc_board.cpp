// SPDX-License-Identifier: Apache-2.0
#include "machine/pc_board.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "device/i440fx.h"
#include "device/q35_mch.h"
#include "firmware/table_loader.h"
#include "machine/ide_places.h"
#include "machine/layout.h"
#include "machine/pci_storage.h"
#include "machine/trace.h"
#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"

namespace lodge {

namespace {
constexpr std::uint64_t kMaxFirmware = 16_MiB, kFirmwareUnit = 64_KiB;
constexpr unsigned kRomRegion = 0, kVideoRegion = 1, kFlashRegion = 2;
constexpr const char* kFirmwareFolders[] = {"/usr/share/seabios/", "/usr/share/qemu/"};

Result<std::vector<std::byte>> readInstalled(const std::string& name) {
  for (const char* folder : kFirmwareFolders) {
    auto file = readFile(folder + name, kMaxFirmware);
    if (file || file.error().kind() != ErrorKind::notFound) return file;
  }
  return Error(ErrorKind::notFound,
               fmt::format("firmware {}: not in {} or {}", inQuotes(name), kFirmwareFolders[0], kFirmwareFolders[1]))
      .withHint("install the package seabios, or name an image with --bios FILE");
}

Result<std::vector<std::byte>> readFirmware(const std::string& path) {
  if (path.empty()) return readInstalled("bios-256k.bin");
  auto image = readFile(path, kMaxFirmware);
  if (!image) {
    return std::move(image).error().context("--bios").withHint(
        "it takes a firmware image of 64K to 16M that can be read");
  }
  if (image->empty() || image->size() % kFirmwareUnit != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("firmware {}: {} bytes", inQuotes(path), image->size()))
        .withHint("--bios takes an image of 64K to 16M, in steps of 64K");
  }
  return image;
}

Piix3::IsaLines pciCapableIrqs(Chipset& chipset) {
  Piix3::IsaLines lines{};
  for (unsigned irq : {3u, 4u, 5u, 6u, 7u, 9u, 10u, 11u, 12u, 14u, 15u}) lines[irq] = &chipset.interrupts().isa(irq);
  return lines;
}

std::uint64_t firmwareBytes(const GuestMemory& memory) {
  return memory.videoOffset() - memory.romOffset();
}
}  // namespace

Result<std::unique_ptr<GuestMemory>> createPcMemory(const MachineConfig& config, FlashFiles& flash) {
  std::uint64_t bytes = 0, lowLimit = config.q35 ? layout::kQ35LowLimit : GuestMemory::kHoleStart;
  for (const FlashConfig& chip : flashChips(config)) {
    auto file = FlashFile::open(chip);
    if (!file) return std::move(file).error();
    bytes += (*file)->bytes();
    flash.push_back(std::move(*file));
  }
  if (!flash.empty())
    return GuestMemory::create(config.memory, {.rom = bytes, .video = Vga::kMemoryBytes, .lowLimit = lowLimit});
  auto image = readFirmware(config.bios);
  if (!image) return std::move(image).error();
  auto memory =
      GuestMemory::create(config.memory, {.rom = image->size(), .video = Vga::kMemoryBytes, .lowLimit = lowLimit});
  if (!memory) return memory;
  GuestMemory& m = **memory;
  std::memcpy(m.deviceView() + m.romOffset(), image->data(), image->size());
  m.mapRegion(kRomRegion, Gpa{4_GiB - image->size()}, m.romOffset(), image->size());
  return memory;
}

PcBoard::PcBoard(const MachineConfig& config, GuestMemory& memory, IoBus& ports, Chipset& chipset)
    : chipset_(chipset),
      q35_(config.q35),
      dark_(config.graphics == Graphics::none),
      debug_(traces(config.trace, "firmware") ? std::function([](std::string_view line) {
        logLine(LogLevel::debug, fmt::format("firmware: {}", line));
      })
                                              : nullptr),
      ide_(memory, chipset.interrupts().isa(14), chipset.interrupts().isa(15)),
      dma_(memory),
      vga_(memory, kVideoRegion),
      display_(vga_, chipset.keyboard()) {
  makeChips(config, memory, ports);
  chipset.keyboard().attachDevices(chipset.interrupts().isa(12));
  chipset.acpi().setSoftOffType(AcpiPm::kPcS5SleepType);
  for (unsigned line = 0; line < interrupts_.size(); ++line) {
    interrupts_[line].ioApic = &chipset.interrupts().gsi(layout::kPciGsiBase + line);
    // Slot 1, pin A is PIRQA (82371SB); slot 0 on the Q35.
    interrupts_[line].pirq = &isa_->pirq(q35_ ? line : (line + 3) % 4);
  }
}

void PcBoard::makeChips(const MachineConfig& config, GuestMemory& memory, IoBus& ports) {
  if (!q35_) {
    bridge_ = std::make_unique<I440Fx>(memory, firmwareBytes(memory));
    isa_ = std::make_unique<Piix3>(pciCapableIrqs(chipset_));
    power_ = std::make_unique<Piix4Pm>(ports, chipset_.acpi(), layout::kAcpiPmPort);
    return;
  }
  chipset_.acpi().enableSmi(config.smm());
  auto placeExpress = [this](std::optional<std::uint64_t> base, unsigned buses) {
    if (host_) host_->placeEcam(base, buses);
  };
  bridge_ = std::make_unique<Q35Mch>(memory, firmwareBytes(memory), config.smm(), placeExpress);
  isa_ = std::make_unique<Ich9Lpc>(pciCapableIrqs(chipset_), chipset_.acpi());
  apm_ = std::make_unique<Ich9Apm>([this] {
    // All CPUs are interrupted, the one that writes the port before its next instruction.
    constexpr ApicMessage kSmi{.destination = 0xff,
                               .wideDestination = false,
                               .logical = false,
                               .mode = DeliveryMode::smi,
                               .vector = 0,
                               .levelTriggered = false,
                               .assertLevel = true};
    if (chipset_.acpi().apmRaisesSmi()) chipset_.apicBus().deliver(kSmi);
  });
}

Result<std::unique_ptr<PcBoard>> PcBoard::create(const MachineConfig& config, EventLoop&, GuestMemory& memory,
                                                 IoBus& ports, IoBus& mmio, Chipset& chipset, RemovableDrives& drives,
                                                 FlashFiles flash) {
  auto board = std::unique_ptr<PcBoard>(new PcBoard(config, memory, ports, chipset));
  if (Status s = board->addFlash(memory, mmio, std::move(flash)); !s) return std::move(s).error();
  if (Status s = board->plugPorts(ports, mmio); !s) return std::move(s).error();
  if (Status s = board->addDrives(config, drives); !s) return std::move(s).error();
  if (Status s = board->addFloppies(config, drives); !s) return std::move(s).error();
  if (Status s = board->floppy_ ? board->floppy_->plugPorts(ports) : Status{}; !s) return std::move(s).error();
  return board;
}

Status PcBoard::plugPorts(IoBus& ports, IoBus& mmio) {
  if (Status s = ports.add(layout::kFirmwareDebugPort, 1, debug_, "firmware debug port"); !s) return s;
  IoDevice& apm = power_ ? power_->apm() : *apm_;
  if (Status s = ports.add(Piix4Pm::kApmPort, Piix4Pm::kApmBytes, apm, "APM"); !s) return s;
  if (Status s = ide_.plugPorts(ports); !s) return s;
  if (Status s = dma_.plugPorts(ports); !s) return s;
  if (Status s = dark_ ? Status{} : vga_.plugPorts(ports, mmio); !s) return s;
  return mmio.add(PamBridge::kShadowBase, PamBridge::kShadowBytes, bridge_->shadow(), "shadow RAM");
}

// The first chip ends at 4 GiB, the next one ends where that begins.
Status PcBoard::addFlash(GuestMemory& memory, IoBus& mmio, FlashFiles files) {
  flashFiles_ = std::move(files);
  std::uint64_t below = 0;
  for (auto& file : flashFiles_) {
    below += file->bytes();
    ParallelFlash::Setup setup{.memory = memory,
                               .region = kFlashRegion + static_cast<unsigned>(flash_.size()),
                               .base = Gpa{4_GiB - below},
                               .offset = memory.videoOffset() - below,
                               .bytes = file->bytes(),
                               .readOnly = file->readOnly(),
                               .store = [file = file.get()](std::uint64_t offset, std::span<const std::byte> bytes) {
                                 file->store(offset, bytes);
                               }};
    std::vector<std::byte> contents = file->takeContents();
    std::memcpy(memory.deviceView() + setup.offset, contents.data(), contents.size());
    auto& chip = *flash_.emplace_back(std::make_unique<ParallelFlash>(setup));
    if (Status s = mmio.add(raw(setup.base), setup.bytes, chip, "firmware flash"); !s) return s;
  }
  return {};
}

void PcBoard::reset() {
  for (auto& chip : flash_) chip->reset();
  dma_.reset();
  if (floppy_) floppy_->reset();
}

void PcBoard::transfer(state::Snapshot& snapshot) {
  using state::Archive;
  auto function = [&](PciFunction& f, std::uint16_t version = 1) {
    snapshot.section(f.name(), version, [&](Archive& a) { f.transfer(a); });
  };
  function(*bridge_);
  function(*isa_);
  function(ide_, 2);  // 2: whether CD-ROM drives have a medium
  if (power_) function(*power_);
  if (apm_) snapshot.section("apm", 1, [&](Archive& a) { apm_->transfer(a); });
  snapshot.section("dma", 1, [&](Archive& a) { dma_.transfer(a); });
  if (floppy_) snapshot.section("floppy", 1, [&](Archive& a) { floppy_->transfer(a); });
  if (!dark_) function(vga_);
  for (std::size_t n = 0; n < flash_.size(); ++n)
    snapshot.section(fmt::format("flash {}", n), 1, [&](Archive& a) { flash_[n]->transfer(a); });
}

Status PcBoard::addDrives(const MachineConfig& config, RemovableDrives& removable) {
  unsigned number = 0;
  auto places = idePlaces(config);
  if (!places) return std::move(places).error();
  for (std::size_t index = 0; index < config.disks.size(); ++index) {
    const DriveConfig& options = config.disks[index];
    if (options.bus != DriveBus::ide) continue;
    auto disk = openDrive(options);
    if (!disk) return std::move(disk).error();
    unsigned place = places->at(index);
    std::unique_ptr<IdeDrive> drive;
    if (options.cdrom) {
      drive = std::make_unique<AtapiDrive>(std::move(*disk));
    } else {
      drive = std::make_unique<AtaDisk>(std::move(*disk), fmt::format("ide{}", number++));
    }
    IdeChannel& channel = ide_.channel(place / 2);
    channel.attach(place % 2, std::move(drive));
    if (options.cdrom) {
      removable.add(
          removableDriveName(config, index), true, [&channel, place](std::shared_ptr<Disk> medium, bool force) {
            return channel.withDrive(
                place % 2, [&](IdeDrive& d) { return static_cast<AtapiDrive&>(d).change(std::move(medium), force); });
          });
    }
    addBootDevice(options.cdrom ? 'd' : 'c',
                  fmt::format("/pci@i0cf8/ide@{}/drive@{}/disk@{}", q35_ ? "1" : "1,1", place / 2, place % 2),
                  options.bootIndex);
  }
  return {};
}

Status PcBoard::addFloppies(const MachineConfig& config, RemovableDrives& removable) {
  if (config.floppies.empty()) return {};
  floppy_ = std::make_unique<FloppyController>(dma_, chipset_.interrupts().isa(6));
  std::uint8_t types = 0;
  for (unsigned number = 0; number < config.floppies.size(); ++number) {
    const FloppyConfig& options = config.floppies[number];
    std::shared_ptr<Disk> medium;
    std::uint8_t type = kFloppy1440;
    if (!options.path.empty()) {
      DiskOptions image{.path = options.path, .format = "raw", .readOnly = options.readOnly};
      image.snapshot = options.snapshot;
      auto opened = openDisk(image);
      if (!opened) {
        return std::move(opened).error().context("--floppy").withHint("name a raw image of a floppy disk, or 'none'");
      }
      medium = std::move(*opened);
      auto format = floppyFormatOf(medium->sizeBytes());
      if (!format) return notAFloppy("--floppy " + inQuotes(options.path), medium->sizeBytes());
      type = format->drive;
    }
    floppy_->attach(number, type, std::move(medium));
    types |= static_cast<std::uint8_t>(number == 0 ? type << 4 : type);
    removable.add(fmt::format("floppy{}", number), false, [this, number](std::shared_ptr<Disk> disk, bool) {
      return floppy_->change(number, std::move(disk));
    });
    addBootDevice('a', fmt::format("/pci@i0cf8/isa@{}/fdc@03f0/floppy@{}", q35_ ? "1f" : "1", number), std::nullopt);
  }
  constexpr unsigned kTypes = 0x10, kEquipment = 0x14;
  chipset_.rtc().storeCmos(kTypes, types);
  auto more = static_cast<unsigned>(config.floppies.size() - 1);
  chipset_.rtc().storeCmos(kEquipment, static_cast<std::uint8_t>(0x07 | more << 6));  // FPU, mouse port, drives
  return {};
}

/// iPXE for the virtio network card: SeaBIOS runs it, and starts from the network by it.
Status PcBoard::addNetworkRom() {
  constexpr const char* kRom = "/usr/lib/ipxe/qemu/pxe-virtio.rom";
  auto rom = readFile(kRom, 1_MiB);
  if (!rom) {
    return std::move(rom).error().context("--boot n").withHint("install the package ipxe-qemu");
  }
  auto* bytes = reinterpret_cast<const std::uint8_t*>(rom->data());
  return chipset_.fwCfg().addFile("pci1af4,1041.rom", {bytes, bytes + rom->size()});
}

Status PcBoard::plug(PciHost& host) {
  host_ = &host;
  if (Status s = host.plug(q35_ ? layout::kLpcSlot : layout::kPiixSlot, *isa_); !s) return s;
  if (Status s = host.plug(layout::kPiixSlot, ide_, q35_ ? 0 : 1); !s) return s;
  if (Status s = power_ ? host.plug(layout::kPiixSlot, *power_, 3) : Status{}; !s) return s;
  return dark_ ? Status{} : host.plug(layout::kDisplaySlot, vga_);
}

std::string PcBoard::bootOrder(const std::string& letters) const {
  std::string order;
  std::vector<const BootDevice*> numbered;
  for (const BootDevice& device : bootDevices_) {
    if (device.index) numbered.push_back(&device);
  }
  std::ranges::stable_sort(numbered, {}, [](const BootDevice* d) { return *d->index; });
  for (const BootDevice* device : numbered) order += device->path + "\n";
  auto add = [&](char kind) {
    for (const BootDevice& device : bootDevices_) {
      if (device.kind == kind && !device.index) order += device.path + "\n";
    }
  };
  for (char letter : letters) add(letter);
  for (char letter : std::string_view("cad")) {
    if (letters.find(letter) == std::string::npos) add(letter);
  }
  return order;
}

Status PcBoard::describeToFirmware(const MachineConfig& config, const GuestMemory& memory) {
  FwCfg& fwCfg = chipset_.fwCfg();
  unsigned addressBits = layout::pcAddressBits(GuestMemory::kHoleEnd + memory.highSize());
  auto description = Chipset::describe(config, memory, addressBits);
  if (Status s = firmware::addFirmwareTables(fwCfg, memory, description); !s) return s;
  // SeaBIOS runs this for the display of that identity; without it the screen stays dark, and all else works.
  if (auto rom = readInstalled("vgabios-stdvga.bin"); rom && !dark_) {
    auto* bytes = reinterpret_cast<const std::uint8_t*>(rom->data());
    if (Status s = fwCfg.addFile("pci1234,1111.rom", {bytes, bytes + rom->size()}); !s) return s;
  }
  auto addText = [&](const char* name, std::string text) {
    text.push_back('\0');
    return fwCfg.addFile(name, {text.begin(), text.end()});
  };
  if (!bootDevices_.empty()) {
    if (Status s = addText("bootorder", bootOrder(config.bootOrder)); !s) return s;
  }
  if (dark_) {  // SeaBIOS is a terminal at this port then
    constexpr std::uint16_t kFirstSerialPort = 0x3f8;
    if (Status s = fwCfg.addFile("etc/sercon-port", {kFirstSerialPort & 255, kFirstSerialPort >> 8}); !s) return s;
  }
  if (config.bootOrder.find('n') != std::string::npos) {
    if (Status s = addNetworkRom(); !s) return s;
  }
  // 0: no menu, and no waiting for its key; 1: a menu (2 would be one only where there is a choice).
  std::vector<std::uint8_t> show{config.bootMenu ? std::uint8_t{1} : std::uint8_t{0}, 0};
  if (Status s = fwCfg.addFile("etc/show-boot-menu", show); !s) return s;
  return {};
}

}  // namespace lodge
