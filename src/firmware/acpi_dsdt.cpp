// SPDX-License-Identifier: Apache-2.0
// The DSDT: what exists and where, as ACPI namespace objects (ACPI 6.0, chapters 5 and 6).
#include <fmt/format.h>

#include "base/units.h"
#include "firmware/acpi.h"
#include "firmware/aml.h"
#include "firmware/resources.h"

namespace lodge::firmware {

namespace {
void addCrs(AmlWriter& aml, ResourceWriter& resources) {
  aml.name("_CRS").buffer(resources.take());
}

// Processor devices; their _UID is the MADT's processor UID (8.4).
void addProcessors(AmlWriter& aml, const PlatformDescription& p) {
  for (unsigned cpu = 0; cpu < p.cpus; ++cpu) {
    aml.device(fmt::format("C{:03X}", cpu), [&] {
      aml.name("_HID").text("ACPI0007");
      aml.name("_UID").integer(cpu);
    });
  }
}

// What is decoded outside of any device: ECAM has to be reserved here (PCI Firmware Specification 3.0, 4.1.2), and
// ACPI's ports.
void addMotherboard(AmlWriter& aml, const PlatformDescription& p) {
  aml.device("MBRD", [&] {
    aml.name("_HID").eisaId("PNP0C02");
    aml.name("_UID").integer(0);
    ResourceWriter resources;
    if (p.ecamBase != 0) {
      resources.fixedMemory(static_cast<std::uint32_t>(p.ecamBase), static_cast<std::uint32_t>(p.pciBuses * 1_MiB));
    }
    resources.io(p.pm1aEvent, 4).io(p.pm1aControl, 2).io(p.pmTimer, 4);
    if (p.gpe0Length) resources.io(p.gpe0, p.gpe0Length);
    addCrs(aml, resources);
  });
}

// _OSC (6.2.11.3): the operating system may control every PCI Express feature; nothing here competes for them.
void addOsc(AmlWriter& aml) {
  constexpr std::uint64_t kAllControls = 0x3f, kUnknownUuid = 4, kUnknownRevision = 8, kControlsMasked = 0x10;
  auto cdw1 = [&] { aml.nameReference("CDW1"); };
  auto setStatus = [&](std::uint64_t bit) {
    aml.bitOr(
        cdw1, [&, bit] { aml.integer(bit); }, cdw1);
  };
  auto cdw3 = [&] { aml.nameReference("CDW3"); };
  auto local0 = [&] { aml.local(0); };
  auto arg3 = [&] { aml.argument(3); };
  aml.method("_OSC", 4, true, [&] {
    aml.createDwordField(arg3, 0, "CDW1");
    aml.ifThen([&] { aml.equal([&] { aml.argument(0); }, [&] { aml.uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766"); }); },
               [&] {
                 aml.createDwordField(arg3, 8, "CDW3");
                 aml.bitAnd(
                     cdw3, [&] { aml.integer(kAllControls); }, local0);
                 aml.ifThen([&] { aml.notEqual([&] { aml.argument(1); }, [&] { aml.integer(1); }); },
                            [&] { setStatus(kUnknownRevision); });
                 aml.ifThen([&] { aml.notEqual(cdw3, local0); }, [&] { setStatus(kControlsMasked); });
                 aml.store(local0, cdw3);
               });
    aml.otherwise([&] { setStatus(kUnknownUuid); });
    aml.returnValue(arg3);
  });
}

// _PRT (6.2.13): each pin of each device number goes to an I/O APIC input directly.
void addInterruptRouting(AmlWriter& aml, const PlatformDescription& p, std::string_view name = "_PRT") {
  constexpr unsigned kDevices = 32, kPins = 4;
  aml.name(name).package(kDevices * kPins, [&] {
    for (unsigned device = 0; device < kDevices; ++device) {
      for (unsigned pin = 0; pin < kPins; ++pin) {
        aml.package(4, [&] {
          aml.integer((std::uint64_t{device} << 16) | 0xffff);
          aml.integer(pin);
          aml.integer(0);
          aml.integer(p.pciGsi[(device + pin) % kPins]);
        });
      }
    }
  });
}

constexpr std::string_view kRoutes[] = {"PRQA", "PRQB", "PRQC", "PRQD"};
constexpr std::string_view kLinks[] = {"LNKA", "LNKB", "LNKC", "LNKD"};

// An interrupt link (6.2.12 and on): the bridge's route register, whose bit 7 switches it off.
void addInterruptLink(AmlWriter& aml, unsigned number, std::uint16_t irqs) {
  constexpr std::uint64_t kOff = 0x80, kPresent = 0x09, kEnabled = 0x0b, kMaskOffset = 1;
  auto route = [&] { aml.nameReference(std::string("^^BRDG.") + std::string(kRoutes[number])); };
  auto mask = [&] { aml.nameReference("IRQM"); };
  auto off = [&] { aml.integer(kOff); };
  auto local = [&] { aml.local(0); };
  aml.device(kLinks[number], [&] {
    aml.name("_HID").eisaId("PNP0C0F");
    aml.name("_UID").integer(number + 1);
    aml.name("_PRS").buffer(ResourceWriter().pciIrqs(irqs).take());
    aml.method("_STA", 0, false, [&] {
      aml.bitAnd(route, off, local);
      aml.ifThen(local, [&] { aml.returnValue([&] { aml.integer(kPresent); }); });
      aml.returnValue([&] { aml.integer(kEnabled); });
    });
    aml.method("_DIS", 0, true, [&] { aml.bitOr(route, off, route); });
    aml.method("_CRS", 0, true, [&] {
      aml.name("BUF_").buffer(ResourceWriter().pciIrqs(0).take());
      aml.createWordField([&] { aml.nameReference("BUF_"); }, kMaskOffset, "IRQM");
      aml.bitAnd(route, off, local);
      aml.ifThen(local, [&] { aml.store([&] { aml.integer(0); }, mask); });
      aml.otherwise([&] { aml.shiftLeft([&] { aml.integer(1); }, route, mask); });
      aml.returnValue([&] { aml.nameReference("BUF_"); });
    });
    aml.method("_SRS", 1, true, [&] {
      aml.createWordField([&] { aml.argument(0); }, kMaskOffset, "IRQM");
      aml.findSetRightBit(mask, local);
      aml.decrement(local);
      aml.store(local, route);
    });
  });
}

// The bridge, its links, and a _PRT that follows the mode that the operating system tells by \_PIC (5.8.1).
void addInterruptLinks(AmlWriter& aml, const PlatformDescription& p) {
  const PciLinksDescription& links = *p.pciLinks;
  aml.device("BRDG", [&] {
    aml.name("_ADR").integer(std::uint64_t{links.device} << 16 | links.function);
    aml.configurationRegion("PIRQ", links.registers, 4, kRoutes);
  });
  for (unsigned number = 0; number < 4; ++number) addInterruptLink(aml, number, links.irqs);
  constexpr unsigned kDevices = 32, kPins = 4;
  aml.name("PRTP").package(kDevices * kPins, [&] {
    for (unsigned device = 0; device < kDevices; ++device) {
      for (unsigned pin = 0; pin < kPins; ++pin) {
        aml.package(4, [&] {
          aml.integer((std::uint64_t{device} << 16) | 0xffff);
          aml.integer(pin);
          aml.nameReference(kLinks[(device + pin + links.offset) % 4]);
          aml.integer(0);
        });
      }
    }
  });
  addInterruptRouting(aml, p, "PRTA");
  aml.method("_PRT", 0, false, [&] {
    aml.ifThen([&] { aml.nameReference("\\PICF"); }, [&] { aml.returnValue([&] { aml.nameReference("PRTA"); }); });
    aml.returnValue([&] { aml.nameReference("PRTP"); });
  });
}

void addPciRoot(AmlWriter& aml, const PlatformDescription& p) {
  aml.device("PCI0", [&] {
    aml.name("_HID").eisaId(p.ecamBase != 0 ? "PNP0A08" : "PNP0A03");
    if (p.ecamBase != 0) aml.name("_CID").eisaId("PNP0A03");
    aml.name("_SEG").integer(0);
    aml.name("_BBN").integer(0);
    aml.name("_UID").integer(0);
    constexpr std::uint16_t kConfigAddress = 0xcf8;
    ResourceWriter resources;
    resources.busWindow(0, static_cast<std::uint16_t>(p.pciBuses)).io(kConfigAddress, 8);
    resources.ioWindow(0, kConfigAddress - 1).ioWindow(kConfigAddress + 8, 0xffff);
    if (p.vga) resources.memoryWindow32(0xa0000, 0x20000);
    resources.memoryWindow32(static_cast<std::uint32_t>(p.window32Base), static_cast<std::uint32_t>(p.window32Size));
    if (p.window64Size) resources.memoryWindow64(p.window64Base, p.window64Size);
    addCrs(aml, resources);
    addOsc(aml);
    if (p.pciLinks) {
      addInterruptLinks(aml, p);
    } else {
      addInterruptRouting(aml, p);
    }
  });
}

void addIsaDevice(AmlWriter& aml, std::string_view name, std::string_view id, unsigned uid, ResourceWriter& resources) {
  aml.device(name, [&] {
    aml.name("_HID").eisaId(id);
    aml.name("_UID").integer(uid);
    addCrs(aml, resources);
  });
}

void addLegacyDevices(AmlWriter& aml, const PlatformDescription& p) {
  unsigned number = 1;
  for (const SerialPortDescription& port : p.serialPorts) {
    ResourceWriter resources;
    resources.io(port.port, 8).irq(port.gsi);
    addIsaDevice(aml, fmt::format("COM{}", number), "PNP0501", number, resources);
    ++number;
  }
  if (p.rtc) {
    ResourceWriter resources;
    resources.io(*p.rtc, 2).irq(8);
    addIsaDevice(aml, "RTC_", "PNP0B00", 0, resources);
  }
  if (p.pit) {
    ResourceWriter resources;
    resources.io(*p.pit, 4).irq(0);
    addIsaDevice(aml, "PIT_", "PNP0100", 0, resources);
  }
  if (p.dma) {
    ResourceWriter resources;
    resources.io(0x00, 16).io(0x80, 16).io(0xc0, 32).dma(4);
    addIsaDevice(aml, "DMA_", "PNP0200", 0, resources);
  }
  if (p.floppy) {
    ResourceWriter resources;
    resources.io(0x3f2, 4).io(0x3f7, 1).irq(6).dma(2);
    addIsaDevice(aml, "FDC0", "PNP0700", 0, resources);
  }
  if (p.hpet) {
    constexpr std::uint32_t kRegisterBytes = 0x400;
    ResourceWriter resources;
    resources.fixedMemory(static_cast<std::uint32_t>(*p.hpet), kRegisterBytes);
    addIsaDevice(aml, "HPET", "PNP0103", 0, resources);
  }
}

void addKeyboard(AmlWriter& aml) {
  ResourceWriter keyboard, mouse;
  keyboard.io(0x60, 1).io(0x64, 1).irq(1);
  addIsaDevice(aml, "KBD_", "PNP0303", 0, keyboard);
  mouse.irq(12);
  addIsaDevice(aml, "MOU_", "PNP0F13", 0, mouse);
}

// Devices with identifiers that QEMU made known (docs/specs/pvpanic, docs/specs/fw_cfg).
void addParavirtualDevice(AmlWriter& aml, std::string_view name, std::string_view id, std::uint16_t port,
                          std::uint8_t length) {
  aml.device(name, [&] {
    aml.name("_HID").text(id);
    aml.name("_UID").integer(0);
    ResourceWriter resources;
    resources.io(port, length);
    addCrs(aml, resources);
  });
}
}  // namespace

std::vector<std::uint8_t> buildDsdtBody(const PlatformDescription& p) {
  AmlWriter aml;
  if (p.pciLinks) {
    aml.name("\\PICF").integer(0);
    aml.method("\\_PIC", 1, false, [&] { aml.store([&] { aml.argument(0); }, [&] { aml.nameReference("\\PICF"); }); });
  }
  aml.scope("\\_SB", [&] {
    addProcessors(aml, p);
    addMotherboard(aml, p);
    addPciRoot(aml, p);
    addLegacyDevices(aml, p);
    if (p.keyboard) addKeyboard(aml);
    if (p.pvpanic) addParavirtualDevice(aml, "PEVT", "QEMU0001", *p.pvpanic, 1);
    if (p.fwCfg) addParavirtualDevice(aml, "FWCF", "QEMU0002", *p.fwCfg, 12);
  });
  // Soft-off (7.3.4.6): SLP_TYP for PM1a and PM1b control.
  aml.name("\\_S5").package(4, [&] {
    aml.integer(p.s5SleepType);
    aml.integer(0);
    aml.integer(0);
    aml.integer(0);
  });
  return aml.take();
}

}  // namespace lodge::firmware
