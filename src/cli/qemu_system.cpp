// SPDX-License-Identifier: Apache-2.0
// The command line that everyone learned: qemu-system-x86_64's, as far as there is something for it here.
#include "cli/qemu_system.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "cli/qemu_drives.h"
#include "cli/qemu_nets.h"
#include "cli/qemu_pci.h"
#include "cli/qemu_settings.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
using Words = std::vector<std::string>;

class Translator {
 public:
  explicit Translator(const Words& arguments) : arguments_(arguments) {}

  Result<QemuCommand> run() {
    for (; at_ < arguments_.size(); ++at_) {
      std::string option = arguments_[at_];
      if (option.starts_with("--")) option.erase(0, 1);
      option_ = option.starts_with("-") ? option : "the disk";
      Status done = option.starts_with("-") ? one(option) : disk("file=" + doubledCommas(option));
      if (!done) return std::move(done).error();
    }
    option_.clear();
    if (kernel_) {
      std::erase(out_.words, std::string("--board=pc"));
    } else {
      out_.words.insert(out_.words.begin(), q35_ ? "--board=q35" : "--board=pc");
    }
    nets_.finish(out_.words);
    if (!floppies_[1].empty() && floppies_[0].empty()) floppies_[0] = "none";
    for (const std::string& floppy : floppies_) {
      if (!floppy.empty()) add("floppy", floppy);
    }
    bool watched = std::ranges::any_of(out_.words, [](const std::string& w) { return w.starts_with("--vnc="); });
    if (dark_ || (nographic_ && !watched && !gpu_)) add("vga", "none");
    if (gpu_ && !kernel_ && !dark_) add("vga", "virtio");
    if (!pointer_.empty() && !kernel_) add("pointer", pointer_);
    if (Status s = drives_.finish(out_.words, out_.notes); !s) return std::move(s).error();
    if (Status s = addPorts(); !s) return std::move(s).error();
    return std::move(out_);
  }

 private:
  void add(const std::string& name, const std::string& value) {
    out_.words.push_back("--" + name + "=" + value);
    spelledAs("--" + name, option_);
  }
  void spelledAs(const std::string& ours, const std::string& theirs) {
    if (theirs.empty()) return;  // nothing that was asked for
    std::string& all = out_.spellings[ours];
    if (all.find(theirs) == std::string::npos) all += (all.empty() ? "" : " or ") + theirs;
  }
  Result<std::string> value(const std::string& option) {
    if (at_ + 1 < arguments_.size()) return arguments_[++at_];
    return Error(ErrorKind::invalidArgument, option + " needs a value");
  }
  Status one(const std::string& option);
  Status withValue(const std::string& option, const std::string& text);
  Status disk(const std::string& text);
  Status floppy(unsigned number, const std::string& value);
  Status boot(const std::string& text);
  Status device(const std::string& text);
  Status addPorts();
  Status accelerator(const std::string& option, const std::string& names);

  const Words& arguments_;
  std::size_t at_ = 0;
  std::string option_;  ///< the one at at_
  QemuCommand out_;
  QemuNets nets_;
  QemuDrives drives_;
  std::string pointer_;
  std::array<std::string, 2> floppies_;
  bool gpu_ = false, dark_ = false, nographic_ = false;
  QemuPci pci_;
  bool kernel_ = false, q35_ = false;
};

Status Translator::one(const std::string& option) {
  // What means nothing here, without and with a value.
  static const Words kIgnored{"-nodefaults",    "-no-user-config", "-usb",          "-no-hpet",
                              "-no-acpi-table", "-S-none",         "-no-fd-bootchk"};
  static const Words kIgnoredValues{"-serial", "-monitor", "-k",          "-rtc",      "-uuid",   "-parallel",
                                    "-mon",    "-msg",     "-overcommit", "-audiodev", "-soundhw"};
  if (std::ranges::count(kIgnored, option) != 0) return {};
  if (option == "-enable-kvm") {
    out_.kvmAskedBy = option;
    return {};
  }
  if (option == "-snapshot" || option == "-no-reboot") {
    out_.words.push_back("-" + option);
    return {};
  }
  if (option == "-nographic") {
    nographic_ = true;
    return {};
  }
  if (option == "-daemonize") {
    out_.words.emplace_back("--detach");
    return {};
  }
  static const Words kTaken{"-hda",   "-hdb",     "-hdc",    "-hdd",    "-fda",   "-fdb",       "-cdrom",  "-bios",
                            "-vnc",   "-initrd",  "-append", "-name",   "-m",     "-smp",       "-boot",   "-drive",
                            "-net",   "-nic",     "-netdev", "-vga",    "-M",     "-usbdevice", "-device", "-machine",
                            "-accel", "-display", "-cpu",    "-pflash", "-kernel"};
  if (std::ranges::count(kIgnoredValues, option) == 0 && std::ranges::count(kTaken, option) == 0) {
    return Error(ErrorKind::unsupported, "unknown option " + inQuotes(option))
        .withHint("'lodge help qemu' tells what is accepted");
  }
  auto text = value(option);
  if (!text) return std::move(text).error();
  if (std::ranges::count(kIgnoredValues, option) != 0) return {};
  return withValue(option, *text);
}

Status Translator::withValue(const std::string& option, const std::string& text) {
  if (option == "-hda" || option == "-hdb" || option == "-hdc" || option == "-hdd") {
    add("disk", fmt::format("{},bus=ide,unit={}", doubledCommas(text), option.back() - 'a'));
  } else if (option == "-fda" || option == "-fdb") {
    return floppy(option.back() - 'a', doubledCommas(text));
  } else if (option == "-cdrom") {
    add("cdrom", doubledCommas(text));
  } else if (option == "-bios" || option == "-vnc" || option == "-initrd" || option == "-append") {
    add(option.substr(1), text);
  } else if (option == "-pflash") {
    add("pflash", doubledCommas(text));
  } else if (option == "-kernel") {
    kernel_ = true;
    add("kernel", text);
  } else if (option == "-name") {
    add("name", qemuSettings(text, "guest")["guest"]);
  } else if (option == "-m") {
    std::string size = qemuSettings(text, "size")["size"];
    bool plain = !size.empty() && std::ranges::all_of(size, [](char c) { return c >= '0' && c <= '9'; });
    add("memory", plain ? size + "M" : size);
  } else if (option == "-smp") {
    add("cpus", qemuSettings(text, "cpus")["cpus"]);
  } else if (option == "-boot") {
    return boot(text);
  } else if (option == "-drive") {
    return disk(text);
  } else if (option == "-net" || option == "-nic" || option == "-netdev") {
    spelledAs("--net", option);
    return nets_.net(option, text, out_.notes);
  } else if (option == "-vga") {
    gpu_ = text == "virtio";
    dark_ = text == "none";
    static const Words kOthers{"cirrus", "vmware", "qxl"};
    if (std::ranges::count(kOthers, text) != 0) {
      out_.notes.push_back(fmt::format("-vga {}: the display is a VGA with a linear frame buffer (std)", text));
    } else if (text != "std" && !gpu_ && !dark_) {
      return qemuUnsupported(option, text, "there are std, virtio and none");
    }
  } else if (option == "-display") {
    if (text.starts_with("vnc=")) add("vnc", text.substr(4));
  } else if (option == "-usbdevice") {
    return device("usb-" + (text == "keyboard" ? std::string("kbd") : text));
  } else if (option == "-device") {
    return device(text);
  } else if (option == "-machine" || option == "-M") {
    auto all = qemuSettings(text, "type");
    if (Status s = accelerator(option + " accel=", all["accel"]); !s) return s;
    std::string type = all["type"];
    if (type == "q35" || type.starts_with("pc-q35")) {
      q35_ = true;
    } else if (!type.empty() && type != "pc" && !type.starts_with("pc-")) {
      return qemuUnsupported(option, type, "there are pc and q35");
    }
  } else if (option == "-accel") {
    return accelerator(option, qemuSettings(text, "accel")["accel"]);
  } else if (option == "-cpu") {
    std::string model = text.substr(0, text.find(',')), rate;
    for (std::string_view setting : split(text, ',')) {
      if (setting.starts_with("tsc-frequency=")) rate = "," + std::string(setting);
    }
    bool known = model.starts_with("x86-64-v");
    if (known || !rate.empty()) add("cpu", (known ? model : "host") + rate);
    if (known) return {};
    if (model != "host" && model != "max") {
      out_.notes.push_back(fmt::format("-cpu {}: the guest's processor is like the host's (--cpu host)", model));
    }
  }
  return {};
}

/// QEMU takes several, by colons, and uses the first that works.
Status Translator::accelerator(const std::string& option, const std::string& names) {
  if (names.empty()) return {};
  std::string first = names.substr(0, names.find(':'));
  if (first == "kvm") {
    out_.kvmAskedBy = option;
  } else if (first == "tcg") {
    add("engine", "translate");
  } else {
    return qemuUnsupported(option, names, "there are kvm and tcg");
  }
  return {};
}

Status Translator::disk(const std::string& text) {
  auto all = qemuSettings(text);
  std::string file = all["file"], bus = all["if"];
  if (file.empty()) return Error(ErrorKind::invalidArgument, "-drive " + inQuotes(text) + " names no file");
  std::string unit;
  if (bus.empty() || bus == "ide") {
    if (!all["index"].empty()) unit = ",unit=" + all["index"];
    if (!all["bus"].empty() && !all["unit"].empty()) {
      auto channel = parseNumber(all["bus"], 1), device = parseNumber(all["unit"], 1);
      if (!channel || !device)
        return qemuUnsupported("-drive", text, "IDE has the buses 0 and 1 with the units 0 and 1");
      unit = fmt::format(",unit={}", 2 * *channel + *device);
    }
  }
  if (all["media"] == "cdrom" && bus != "none") {
    add("cdrom", doubledCommas(file) + unit);
    return {};
  }
  if (bus == "pflash") {
    if (!all["format"].empty() && all["format"] != "raw")
      return qemuUnsupported("-drive", text, "flash images are raw");
    add("pflash", doubledCommas(file) + (all["readonly"] == "on" ? ",readonly" : ""));
    return {};
  }
  if (bus == "floppy") {
    auto number = parseNumber(all["index"].empty() ? "0" : all["index"], 1);
    if (!number) return qemuUnsupported("-drive", text, "floppy drives have the index 0 and 1");
    std::string readOnly = all["readonly"] == "on" ? ",readonly" : "";
    return floppy(static_cast<unsigned>(*number), doubledCommas(file) + readOnly);
  }
  if (!bus.empty() && bus != "ide" && bus != "virtio" && bus != "none")
    return qemuUnsupported("-drive", text, "if= takes ide, virtio, floppy, pflash and none");
  std::string disk = doubledCommas(file);
  std::string rest;
  if (!all["format"].empty()) rest += ",format=" + all["format"];
  if (all["readonly"] == "on") rest += ",readonly";
  if (all["snapshot"] == "on") rest += ",snapshot";
  if (bus == "none") {
    drives_.drive(all, disk, rest);
    spelledAs("--disk", option_);
    spelledAs("--cdrom", option_);
    return {};
  }
  add("disk", disk + (bus == "virtio" ? "" : ",bus=ide" + unit) + rest);
  return {};
}

Status Translator::floppy(unsigned number, const std::string& value) {
  if (!floppies_[number].empty()) {
    return Error(ErrorKind::invalidArgument, fmt::format("two floppy disks in drive {}", number))
        .withHint("-fda and -fdb, or index=0 and index=1, are the drives");
  }
  floppies_[number] = value;
  spelledAs("--floppy", option_);
  return {};
}

Status Translator::boot(const std::string& text) {
  auto all = qemuSettings(text, "order");
  std::string order = all["once"].empty() ? all["order"] : all["once"];
  // Letters of QEMU's: a and b floppy drives, c disks, d CD-ROM drives, n to p network cards.
  if (std::ranges::any_of(order, [](char c) { return c < 'a' || c > 'p'; }))
    return qemuUnsupported("-boot", text, "order= takes the letters a (floppy), c (disk), d (CD-ROM) and n (network)");
  std::erase_if(order, [](char c) { return std::string_view("acdn").find(c) == std::string_view::npos; });
  if (!order.empty()) add("boot", order);
  if (all["menu"] == "on") out_.words.emplace_back("--boot-menu");
  return {};
}

Status Translator::addPorts() {
  if (!pci_.hasPorts()) return {};
  if (kernel_) {
    out_.notes.emplace_back("-device pcie-root-port: with -kernel all devices are on one bus");
    return {};
  }
  if (q35_) return pci_.finish(out_.words, nets_);
  return Error(ErrorKind::invalidArgument, "-device pcie-root-port: this board has no PCI Express")
      .withHint("choose -M q35");
}

Status Translator::device(const std::string& text) {
  std::string kind = splitFields(text, ',')[0];
  if (Status s = pci_.device(kind, qemuSettings(text)); !s) return s;
  if (QemuPci::isPort(kind)) return {};
  if (drives_.device(kind, qemuSettings(text))) return {};
  auto network = nets_.device(kind, qemuSettings(text), out_.notes);
  if (!network) return std::move(network).error();
  if (*network) return {};
  if (kind == "usb-tablet" || kind == "virtio-tablet-pci") {
    pointer_ = kind == "usb-tablet" ? "usb" : "virtio";
    return {};
  }
  if (kind.starts_with("virtio-gpu") || kind.starts_with("virtio-vga")) {
    gpu_ = true;
    return {};
  }
  for (const char* known : {"virtio-rng", "virtio-balloon"}) {
    if (kind.starts_with(known)) return {};
  }
  static const Words kControllers{"qemu-xhci", "nec-usb-xhci",   "piix3-usb-uhci",
                                  "usb-ehci",  "ich9-usb-ehci1", "ich9-usb-uhci1"};
  if (std::ranges::count(kControllers, kind) != 0) return {};
  if (kind == "usb-kbd" || kind == "usb-mouse") {
    out_.notes.push_back(fmt::format("-device {}: keyboard and mouse are PS/2", kind));
    return {};
  }
  return qemuUnsupported(
      "-device", kind,
      "there are usb-tablet, virtio-gpu-pci, ahci, ide-hd, ide-cd, nvme, virtio-scsi-pci, scsi-hd, scsi-cd, "
      "virtio-blk-pci and pcie-root-port; virtio-net-pci "
      "and the like are there without it");
}
}  // namespace

Result<QemuCommand> translateQemuCommand(const std::vector<std::string>& arguments) {
  return Translator(arguments).run();
}

VerbSpec qemuVerb() {
  return {
      .name = "qemu",
      .summary = "start a machine by a command line of qemu-system-x86_64",
      .description =
          "Takes the options that everyone learned, and starts the machine as 'lodge run' does: -hda to -hdd, -fda and "
          "-fdb, "
          "-drive, "
          "-drive if=pflash, -cdrom, -usb, -usbdevice tablet, -vga virtio and none, -nographic, -device (usb-tablet, "
          "virtio-gpu-pci, ahci, "
          "ide-hd, ide-cd, nvme, "
          "virtio-scsi-pci, scsi-hd, scsi-cd and "
          "virtio-blk-pci, with drive= and bootindex=; pcie-root-port, whose id other devices take as bus=), -boot, "
          "-m, -smp, -name, -vnc, -net and -nic and -netdev user "
          "(with hostfwd, tftp and bootfile) and tap,ifname=NAME, also with a MAC address, "
          "-bios, -snapshot, "
          "-no-reboot, -daemonize, -kernel, -initrd, -append, -cpu host, max and x86-64-v2 to v4, -M pc and "
          "q35, and some that mean nothing "
          "here "
          "(-display, -serial, -monitor...). The program does the same when it is called by the "
          "name qemu-system-x86_64. -enable-kvm or not, the engine is the one that lodge doctor names (where KVM was "
          "asked for and cannot be "
          "used, a line says so); -accel tcg translates.",
      .examples = {{"lodge qemu -enable-kvm -m 2048 -hda disk.img -cdrom install.iso -boot d -vnc :19",
                    "Installs an operating system; its screen is at port 5919."}},
      .run = [](const Invocation&, const Program&) { return 0; },  // program.cpp hands the words over as they are
  };
}

}  // namespace lodge::cli
