// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_system.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

namespace lodge::cli {
namespace {

std::vector<std::string> words(const std::vector<std::string>& arguments) {
  auto command = translateQemuCommand(arguments);
  EXPECT_TRUE(command) << command.error().message();
  if (!command) return {};
  return command->words;
}
bool has(const std::vector<std::string>& all, const std::string& word) {
  return std::ranges::count(all, word) != 0;
}

TEST(QemuSystem, DrivesAndTheirDevices) {
  auto w = words({"-device", "ahci,id=sata",
                  "-device", "ide-hd,drive=a,bus=sata.0,bootindex=2",
                  "-drive",  "if=none,id=a,file=a.img,format=raw",
                  "-device", "virtio-scsi-pci",
                  "-drive",  "if=none,id=b,file=b,,c.img,readonly=on",
                  "-device", "scsi-hd,drive=b",
                  "-drive",  "if=none,id=c,file=c.iso,media=cdrom",
                  "-device", "scsi-cd,drive=c",
                  "-drive",  "if=none,id=d,file=d.img",
                  "-device", "nvme,drive=d,serial=1",
                  "-drive",  "if=none,id=e,file=e.img",
                  "-device", "virtio-blk-pci,drive=e",
                  "-device", "ide-cd,bus=ide.1",
                  "-device", "ide-cd,bus=ide.1,unit=1"});
  EXPECT_TRUE(has(w, "--disk=a.img,format=raw,bus=ahci,bootindex=2"));
  EXPECT_TRUE(has(w, "--disk=b,,c.img,readonly,bus=scsi"));
  EXPECT_TRUE(has(w, "--cdrom=c.iso,bus=scsi"));
  EXPECT_TRUE(has(w, "--disk=d.img,bus=nvme"));
  EXPECT_TRUE(has(w, "--disk=e.img,bus=virtio"));
  EXPECT_TRUE(has(w, "--cdrom=none,bus=ide"));
  EXPECT_TRUE(has(w, "--cdrom=none,bus=ide,unit=3"));
}

TEST(QemuSystem, DrivesThatDoNotFit) {
  EXPECT_EQ(translateQemuCommand({"-device", "nvme,drive=x"}).error().kind(), ErrorKind::invalidArgument);
  auto twice =
      translateQemuCommand({"-drive", "if=none,id=x,file=a", "-device", "nvme,drive=x", "-device", "scsi-hd,drive=x"});
  EXPECT_EQ(twice.error().kind(), ErrorKind::invalidArgument);
  for (const char* nowhere : {"ide-cd,bus=ide.6", "ide-cd,bus=sata.0", "ide-cd,bus=ide.1,unit=2"}) {
    auto made = translateQemuCommand({"-device", nowhere});
    ASSERT_FALSE(made) << nowhere;
    EXPECT_NE(made.error().message().find("there is no bus="), std::string::npos) << made.error().message();
  }
  auto unused = translateQemuCommand({"-drive", "if=none,id=x,file=a"});
  ASSERT_TRUE(unused);
  EXPECT_EQ(unused->notes.size(), 1u);
}

TEST(QemuSystem, PlacesOfDrives) {
  auto w = words({"-hda", "a,b.img", "-hdd", "d.img", "-cdrom", "cd.iso", "-drive", "file=b.img,index=1", "-drive",
                  "file=c.iso,media=cdrom,bus=1,unit=0"});
  EXPECT_TRUE(has(w, "--disk=a,,b.img,bus=ide,unit=0"));
  EXPECT_TRUE(has(w, "--disk=d.img,bus=ide,unit=3"));
  EXPECT_TRUE(has(w, "--disk=b.img,bus=ide,unit=1"));
  EXPECT_TRUE(has(w, "--cdrom=c.iso,unit=2"));
  EXPECT_TRUE(has(w, "--cdrom=cd.iso"));
}

TEST(QemuSystem, TwoDevicesAtOneAddress) {
  auto twice = translateQemuCommand({"-device", "virtio-rng-pci,addr=5", "-device", "ahci,addr=5"});
  EXPECT_EQ(twice.error().kind(), ErrorKind::invalidArgument);
  EXPECT_TRUE(translateQemuCommand({"-device", "virtio-rng-pci,addr=5", "-device", "ahci,addr=6"}));
}

TEST(QemuSystem, AddressesAreThoseOfTheirBus) {
  auto w = words({"-M", "q35", "-device", "pcie-root-port,id=p1,addr=2", "-device", "pcie-root-port,id=p2,addr=3",
                  "-device", "virtio-rng-pci,bus=p1,addr=0", "-device", "virtio-balloon-pci,bus=p2,addr=0"});
  EXPECT_TRUE(has(w, "--pcie-port=rng"));
  EXPECT_TRUE(has(w, "--pcie-port=balloon"));
}

TEST(QemuSystem, DevicesBehindPorts) {
  std::vector<std::string> line{"-M", "q35", "-drive", "if=virtio,file=first.img"};
  for (int n = 0; n < 8; ++n) {
    line.insert(line.end(), {"-device", "pcie-root-port,id=p" + std::to_string(n) + ",chassis=" + std::to_string(n)});
  }
  for (const char* more : {"-drive",  "if=none,id=a,file=a.img",
                           "-device", "virtio-blk-pci,drive=a,bus=p0",
                           "-drive",  "if=none,id=b,file=b.img",
                           "-device", "nvme,drive=b,serial=1",
                           "-drive",  "if=none,id=c,file=c.img",
                           "-device", "nvme,drive=c,bus=p1",
                           "-netdev", "user,id=n0",
                           "-netdev", "user,id=n1",
                           "-device", "virtio-net-pci,netdev=n1,bus=p2",
                           "-device", "virtio-net-pci,netdev=n0",
                           "-device", "virtio-scsi-pci,bus=p3",
                           "-device", "scsi-cd",
                           "-device", "ahci,bus=p4",
                           "-device", "qemu-xhci,bus=p5",
                           "-device", "usb-tablet",
                           "-device", "virtio-gpu-pci,bus=p6"}) {
    line.emplace_back(more);
  }
  auto w = words(line);
  std::vector<std::string> ports;
  std::ranges::copy_if(w, std::back_inserter(ports), [](auto& word) { return word.starts_with("--pcie-port"); });
  EXPECT_EQ(ports,
            (std::vector<std::string>{"--pcie-port=disk1", "--pcie-port=nvme1", "--pcie-port=net1", "--pcie-port=scsi",
                                      "--pcie-port=none", "--pcie-port=usb", "--pcie-port=gpu", "--pcie-port=none"}));
}

TEST(QemuSystem, PortsThatDoNotFit) {
  std::vector<std::string> port{"-device", "pcie-root-port,id=p"};
  auto fails = [&](std::vector<std::string> more, const std::string& message) {
    more.insert(more.begin(), port.begin(), port.end());
    auto command = translateQemuCommand(more);
    ASSERT_FALSE(command) << message;
    EXPECT_EQ(command.error().message(), message);
    EXPECT_FALSE(command.error().hint().empty());
  };
  fails({}, "-device pcie-root-port: this board has no PCI Express");
  fails({"-M", "q35", "-device", "ahci,bus=q"}, "-device ahci: there is no bus 'q'");
  fails({"-M", "q35", "-device", "ahci,bus=p", "-device", "virtio-rng-pci,bus=p"},
        "-device virtio-rng-pci: ahci is behind port 'p' already");
  fails({"-M", "q35", "-device", "virtio-net-pci,netdev=x,bus=p"}, "-device virtio-net-pci: there is no network 'x'");
}

TEST(QemuSystem, MacAddresses) {
  EXPECT_TRUE(
      has(words({"-net", "nic,model=virtio,macaddr=52:54:00:1:2:3", "-net", "user"}), "--net=user,mac=52:54:00:1:2:3"));
  EXPECT_TRUE(has(words({"-netdev", "user,id=a", "-netdev", "tap,id=b,ifname=t", "-device",
                         "virtio-net-pci,netdev=b,mac=52:54:00:1:2:4"}),
                  "--net=tap,ifname=t,mac=52:54:00:1:2:4"));
  EXPECT_TRUE(has(words({"-nic", "user,mac=52:54:00:1:2:5"}), "--net=user,mac=52:54:00:1:2:5"));
  EXPECT_TRUE(has(words({"-net", "nic,macaddr=52:54:00:1:2:6"}), "--net=user,mac=52:54:00:1:2:6"));
  auto other = translateQemuCommand({"-nic", "user,model=e1000"});
  ASSERT_TRUE(other);
  EXPECT_EQ(other->notes.size(), 1u) << "another card than was asked for";
}

TEST(QemuSystem, Engines) {
  EXPECT_EQ(translateQemuCommand({"-enable-kvm"})->kvmAskedBy, "-enable-kvm");
  EXPECT_EQ(translateQemuCommand({"-M", "q35,accel=kvm:tcg"})->kvmAskedBy, "-M accel=");
  EXPECT_EQ(translateQemuCommand({"-accel", "kvm"})->kvmAskedBy, "-accel");
  EXPECT_EQ(translateQemuCommand({})->kvmAskedBy, "");
  EXPECT_TRUE(has(words({"-accel", "tcg,thread=multi"}), "--engine=translate"));
  EXPECT_EQ(translateQemuCommand({"-accel", "hvf"}).error().kind(), ErrorKind::unsupported);
}

TEST(QemuSystem, ProcessorModels) {
  EXPECT_TRUE(has(words({"-cpu", "x86-64-v2"}), "--cpu=x86-64-v2"));
  EXPECT_TRUE(
      has(words({"-cpu", "x86-64-v3,tsc-frequency=2400000000,+avx2"}), "--cpu=x86-64-v3,tsc-frequency=2400000000"));
  EXPECT_TRUE(
      has(words({"-cpu", "host,migratable=off,tsc-frequency=2400000000"}), "--cpu=host,tsc-frequency=2400000000"));
  EXPECT_EQ(translateQemuCommand({"-cpu", "host,migratable=off"})->notes.size(), 0u);
  EXPECT_EQ(translateQemuCommand({"-cpu", "Skylake-Server"})->notes.size(), 1u);
}

TEST(QemuSystem, Graphics) {
  EXPECT_TRUE(has(words({"-vga", "virtio"}), "--vga=virtio"));
  EXPECT_TRUE(has(words({"-device", "virtio-gpu-pci"}), "--vga=virtio"));
  EXPECT_FALSE(has(words({"-vga", "std"}), "--vga=virtio"));
}

TEST(QemuSystem, Pointers) {
  EXPECT_TRUE(has(words({"-usb", "-device", "usb-tablet"}), "--pointer=usb"));
  EXPECT_TRUE(has(words({"-usbdevice", "tablet"}), "--pointer=usb"));
  EXPECT_TRUE(has(words({"-device", "qemu-xhci", "-device", "virtio-tablet-pci"}), "--pointer=virtio"));
  EXPECT_EQ(translateQemuCommand({"-device", "usb-storage,drive=x"}).error().kind(), ErrorKind::unsupported);
}

TEST(QemuSystem, Tap) {
  EXPECT_TRUE(has(words({"-net", "nic,model=virtio", "-net", "tap,ifname=tap0,script=no,downscript=no"}),
                  "--net=tap,ifname=tap0"));
  EXPECT_EQ(translateQemuCommand({"-net", "tap"}).error().kind(), ErrorKind::unsupported);
}

TEST(QemuSystem, NamesWhatItDoesNotKnow) {
  for (const std::vector<std::string>& bad : std::vector<std::vector<std::string>>{{"-vga", "what"},
                                                                                   {"-boot", "x"},
                                                                                   {"-what"},
                                                                                   {"-fda", "a.img", "-fda", "b.img"},
                                                                                   {"-drive", "file=a,if=what"}}) {
    auto command = translateQemuCommand(bad);
    ASSERT_FALSE(command) << bad[0];
    EXPECT_NE(command.error().message().find(bad[0] == "-fda" ? "drive 0" : bad[0]), std::string::npos) << bad[0];
    EXPECT_FALSE(command.error().hint().empty()) << bad[0];
  }
}

TEST(QemuSystem, HasFloppiesNetworksAndNoGraphics) {
  auto command = translateQemuCommand(
      {"-fdb", "b.img", "-nographic", "-boot", "order=nc", "-netdev", "user,id=n,tftp=/srv,bootfile=start"});
  ASSERT_TRUE(command);
  EXPECT_EQ(command->words, (std::vector<std::string>{"--board=pc", "--boot=nc", "--net=user,tftp=/srv,bootfile=start",
                                                      "--floppy=none", "--floppy=b.img", "--vga=none"}));
  EXPECT_EQ(translateQemuCommand({"-nographic", "-vnc", ":1"})->words,
            (std::vector<std::string>{"--board=pc", "--vnc=:1"}));
}

}  // namespace
}  // namespace lodge::cli
