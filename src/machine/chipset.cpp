// SPDX-License-Identifier: Apache-2.0
#include "machine/chipset.h"

#include <algorithm>

#include "device/chip_state.h"
#include "machine/layout.h"

namespace lodge {

Chipset::Chipset(EventLoop& loop, GuestMemory& memory, unsigned cpus, BoardEvents events, Uart::Output console)
    : events_(std::move(events)),
      pit_(loop, irq0_.first()),
      rtc_({loop, irq8_.first(), hostUtc, memory.lowSize(), memory.highSize(), cpus}),
      hpet_({.timers = loop,
             .irq0 = irq0_.second(),
             .irq8 = irq8_.second(),
             .routes = {&router_.gsi(20), &router_.gsi(21), &router_.gsi(22), &router_.gsi(23)},
             .onLegacyReplacement =
                 [this](bool on) {
                   irq0_.select(on);
                   chips_.pitSilenced(on);
                   irq8_.select(on);
                 }}),
      com1_(router_.isa(4), loop, std::move(console)),
      com2_(router_.isa(3), loop, [](const char*, std::size_t) {}),
      acpi_(loop, router_.isa(layout::kSciGsi), [this] { events_.powerOff(); }),
      resetControl_([this] { events_.reset(); }),
      a20_(memory),
      portA_(a20_, [this] { events_.reset(); }),
      keyboard_(router_.isa(1), [this] { events_.reset(); }),
      pvPanic_([this](std::uint8_t what) {
        if ((what & PvPanic::kPanicked) != 0) events_.panicked();
      }),
      fwCfg_(memory) {
  keyboard_.attachA20(a20_);
  apicBus_.attach(ioApic_);
  apicBus_.setExtIntSource(&pic_);
}

Result<std::unique_ptr<Chipset>> Chipset::create(const MachineConfig& config, EventLoop& loop, GuestMemory& memory,
                                                 IoBus& ports, IoBus& mmio, BoardEvents events, Uart::Output console) {
  auto chipset =
      std::unique_ptr<Chipset>(new Chipset(loop, memory, config.cpus, std::move(events), std::move(console)));
  if (Status s = chipset->plug(config, ports, mmio); !s) return std::move(s).error();
  if (Status s = chipset->describeToGuest(config, memory); !s) return std::move(s).error();
  return chipset;
}

Status Chipset::plug(const MachineConfig& config, IoBus& ports, IoBus& mmio) {
  struct Range {
    std::uint64_t base, length;
    IoDevice& device;
    const char* name;
  };
  const Range ranges[] = {
      {0x20, 2, pic_.master(), "PIC"},
      {0xa0, 2, pic_.slave(), "PIC"},
      {0x4d0, 2, pic_.elcr(), "PIC edge/level control"},
      {layout::kPitPort, 4, pit_.counters(), "PIT"},
      {layout::kSpeakerPort, 1, pit_.systemControl(), "system control port B"},
      {layout::kKeyboardDataPort, 1, keyboard_.data(), "keyboard controller"},
      {layout::kKeyboardCommandPort, 1, keyboard_.command(), "keyboard controller"},
      {layout::kRtcPort, 2, rtc_.ports(), "RTC"},
      {layout::kFastA20Port, SystemControlPortA::kLength, portA_, "system control port A"},
      {layout::kCom1Port, Uart::kLength, com1_, "COM1"},
      {layout::kCom2Port, Uart::kLength, com2_, "COM2"},
      {layout::kAcpiPmPort, AcpiPm::kLength, acpi_, "ACPI power management"},
      {layout::kPvPanicPort, PvPanic::kLength, pvPanic_, "pvpanic"},
      {layout::kFwCfgPort, FwCfg::kPorts, fwCfg_, "fw_cfg"},
  };
  for (const Range& r : ranges) {
    if (Status s = ports.add(r.base, r.length, r.device, r.name); !s) return s;
  }
  if (Status s = mmio.add(layout::kIoApicBase, IoApic::kSize, ioApic_, "I/O APIC"); !s) return s;
  if (config.board == Board::pc) {
    if (Status s = mmio.add(layout::kHpetBase, Hpet::kLength, hpet_, "HPET"); !s) return s;
  }
  if (config.testDevice) {
    std::vector<InterruptLine*> lines;
    for (unsigned pin = 0; pin < IoApic::kPins; ++pin) lines.push_back(&router_.gsi(pin));
    testDevice_ = std::make_unique<TestDevice>(std::move(lines));
    if (Status s = testDevice_->plug(ports, mmio); !s) return s;
  }
  if (config.debugExitPort) {
    debugExit_ = std::make_unique<DebugExit>([this](std::uint32_t value) { events_.debugExit(value); });
    if (Status s = ports.add(*config.debugExitPort, DebugExit::kLength, *debugExit_, "debug exit"); !s) {
      return std::move(s).error().withHint("choose another --debug-exit port, such as 0xf4");
    }
  }
  return {};
}

Status Chipset::describeToGuest(const MachineConfig& config, const GuestMemory& memory) {
  if (Status s = fwCfg_.addInteger(FwCfg::cpuCount, config.cpus, 2); !s) return s;
  if (Status s = fwCfg_.addInteger(FwCfg::maxCpuCount, config.cpus, 2); !s) return s;
  if (Status s = fwCfg_.addInteger(FwCfg::irq0Override, 1, 4); !s) return s;
  return fwCfg_.addInteger(FwCfg::ramSize, memory.size(), 8);
}

firmware::PlatformDescription Chipset::describe(const MachineConfig& config, const GuestMemory& memory,
                                                unsigned physicalAddressBits) {
  firmware::PlatformDescription p;
  p.machineName = config.name.empty() ? "lodge" : config.name;
  p.cpus = config.cpus;
  p.physicalAddressBits = physicalAddressBits;
  p.localApicBase = layout::kLocalApicBase;
  p.ioApicBase = layout::kIoApicBase;
  if (config.board == Board::pc) {
    p.ecamBase = 0;
    if (config.q35) {
      p.ecamBase = layout::kQ35EcamBase;
      p.pciBuses = layout::kQ35Buses;
    }
    p.window32Base = layout::pcWindow32Base(memory.lowSize());
    p.window32Size = layout::kPcWindow32End - p.window32Base;
    if (config.q35) {
      p.window32Base = layout::kQ35EcamBase + layout::kQ35Buses * 1_MiB;
      p.window32Size = layout::kPcWindow32End - p.window32Base;
    }
    p.keyboard = p.dma = true;
    p.vga = config.graphics != Graphics::none;
    p.floppy = !config.floppies.empty();
    p.hpet = layout::kHpetBase;
    p.hpetId = Hpet::kId;
    // PIRQA to PIRQD; 5, 10 and 11 are nobody else's.
    p.pciLinks = firmware::PciLinksDescription{.device = config.q35 ? layout::kLpcSlot : layout::kPiixSlot,
                                               .function = 0,
                                               .offset = config.q35 ? 0u : 3u,
                                               .registers = 0x60,
                                               .irqs = 1 << 5 | 1 << 10 | 1 << 11};
    p.s5SleepType = AcpiPm::kPcS5SleepType;
  } else {
    p.ecamBase = layout::kEcamBase;
    p.window32Base = layout::kPciWindow32Base;
    p.window32Size = layout::kPciWindow32Size;
  }
  std::uint64_t ramEnd = GuestMemory::kHoleEnd + memory.highSize();
  if (config.board == Board::pc) {
    p.window64Base = layout::pcWindow64Base(ramEnd);
    p.window64Size = (std::uint64_t{1} << physicalAddressBits) - p.window64Base;
  } else {
    p.window64Base = layout::pciWindow64Base(ramEnd);
    p.window64Size = layout::kPciWindow64Size;
  }
  p.sciGsi = layout::kSciGsi;
  p.pvpanic = layout::kPvPanicPort;
  p.fwCfg = layout::kFwCfgPort;
  return p;
}

void Chipset::transfer(state::Snapshot& snapshot) {
  using state::Archive;
  auto chip = [&](const char* name, auto& device, std::uint16_t version = 1) {
    snapshot.section(name, version, [&](Archive& a) { transferChip(a, device); });
  };
  chip("pit", pit_);
  chip("rtc", rtc_);
  chip("hpet", hpet_);
  chip("com1", com1_, 2);
  chip("com2", com2_, 2);
  chip("acpi", acpi_);
  snapshot.section("i8042", 1, [&](Archive& a) { keyboard_.transfer(a); });
  snapshot.section("reset-control", 1, [&](Archive& a) { resetControl_.transfer(a); });
  snapshot.section("fw-cfg", 1, [&](Archive& a) { fwCfg_.transfer(a); });
  // Last: what the others did to their inputs while they were loaded is no news.
  chip("pic", pic_);
  chip("io-apic", ioApic_);
}

void Chipset::reset() {
  pic_.reset();
  ioApic_.reset();
  pit_.reset();
  rtc_.reset();
  hpet_.reset();
  com1_.reset();
  com2_.reset();
  acpi_.reset();
  resetControl_.reset();
  keyboard_.reset();
  fwCfg_.reset();
}

}  // namespace lodge
