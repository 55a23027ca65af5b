// SPDX-License-Identifier: Apache-2.0
#include "cli/run_options.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>

#include "base/text.h"
#include "cli/described_run.h"
#include "cli/disk_option.h"
#include "cli/engine_options.h"
#include "cli/net_option.h"
#include "control/machine_name.h"
#include "machine/trace.h"

namespace lodge::cli {

namespace {

Status readSize(const Invocation& invocation, const char* option, std::uint64_t& out) {
  if (!invocation.has(option)) return {};
  auto size = parseSize(invocation.value(option));
  if (!size) return std::move(size).error().context(std::string("--") + option);
  out = alignDown(*size, kPageSize);
  return {};
}

Status readCpus(const Invocation& invocation, MachineConfig& config) {
  if (!invocation.has("cpus")) return {};
  auto cpus = parseNumber(invocation.value("cpus"), UINT16_MAX);
  if (!cpus) {
    return Error(ErrorKind::invalidArgument, "--cpus " + inQuotes(invocation.value("cpus")) + " is not a number")
        .withHint("--cpus takes 1 to 64");
  }
  config.cpus = static_cast<unsigned>(*cpus);
  return {};
}

Status readDebugExit(const Invocation& invocation, MachineConfig& config) {
  if (!invocation.has("debug-exit")) return {};
  auto port = parseNumber(invocation.value("debug-exit"), UINT16_MAX);
  if (!port) {
    return Error(ErrorKind::invalidArgument,
                 "--debug-exit " + inQuotes(invocation.value("debug-exit")) + " is not an I/O port")
        .withHint("write a number from 0 to 0xffff; 0xf4 is usual");
  }
  config.debugExitPort = static_cast<std::uint16_t>(*port);
  return {};
}

Status readDisks(const Invocation& invocation, MachineConfig& config) {
  for (const std::string& text : invocation.all("disk")) {
    auto disk = parseDisk(text);
    if (!disk) return std::move(disk).error();
    disk->snapshot = disk->snapshot || invocation.has("snapshot");
    config.disks.push_back(std::move(*disk));
  }
  return {};
}

Status readCdroms(const Invocation& invocation, MachineConfig& config) {
  for (const std::string& text : invocation.all("cdrom")) {
    auto drive = parseCdrom(text);
    if (!drive) return std::move(drive).error();
    config.disks.push_back(std::move(*drive));
  }
  return {};
}

/// Variables of a machine that has a name of its own stay: in the user's data folder, one file a machine and kind of
/// firmware. Without a home folder, or a name, they end with the machine.
Result<std::string> usualVariables(const Invocation& invocation, bool secure) {
  const char* data = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  std::string name = invocation.value("name");
  if (name.empty() || ((!data || *data != '/') && (!home || *home != '/'))) return std::string();
  auto folder = std::filesystem::path(data && *data == '/' ? std::string(data) : std::string(home) + "/.local/share");
  folder = folder / "lodge" / "uefi";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return Error(ErrorKind::io, "create " + inQuotes(folder.string()) + " for UEFI variables: " + error.message())
        .withHint("name another place with --uefi-vars FILE");
  }
  return (folder / (name + (secure ? ".secure-boot.fd" : ".fd"))).string();
}

Status readFlash(const Invocation& invocation, MachineConfig& config) {
  for (const std::string& text : invocation.all("pflash")) {
    FlashConfig flash;
    std::vector<std::string> fields = splitFields(text, ',');
    flash.path = fields[0];
    bool good = !flash.path.empty();
    for (std::size_t n = 1; n < fields.size(); ++n) {
      good = good && fields[n] == "readonly";
      flash.readOnly = true;
    }
    if (!good) {
      return Error(ErrorKind::invalidArgument, "--pflash " + inQuotes(text))
          .withHint("write --pflash FILE or --pflash FILE,readonly; a comma in the name is written ',,'");
    }
    flash.keep = !invocation.has("snapshot");
    config.flash.push_back(std::move(flash));
  }
  return {};
}

Status readFloppies(const Invocation& invocation, MachineConfig& config) {
  for (const std::string& text : invocation.all("floppy")) {
    auto drive = parseFloppy(text);
    if (!drive) return std::move(drive).error();
    drive->snapshot = drive->snapshot || invocation.has("snapshot");
    config.floppies.push_back(std::move(*drive));
  }
  return {};
}

/// Firmware of the pc board.
Status readFirmware(const Invocation& invocation, MachineConfig& config) {
  config.bios = invocation.value("bios");
  config.secureBoot = invocation.has("secure-boot");
  config.uefiVars = invocation.value("uefi-vars");
  bool uefi = config.secureBoot || invocation.has("uefi-vars");
  if (invocation.value("firmware", uefi ? "uefi" : "bios") == "uefi") config.firmware = Firmware::uefi;
  if (Status s = readFlash(invocation, config); !s) return s;
  if (config.firmware != Firmware::uefi || invocation.has("uefi-vars")) return {};
  if (invocation.has("snapshot")) return {};
  auto variables = usualVariables(invocation, config.secureBoot);
  if (!variables) return std::move(variables).error();
  config.uefiVars = std::move(*variables);
  return {};
}

/// The board: as it is asked for, else what the rest needs.
void readBoard(const Invocation& invocation, MachineConfig& config) {
  config.bootOrder = invocation.value("boot", config.bootOrder);
  config.bootMenu = invocation.has("boot-menu");
  bool firmware = invocation.has("machine") || invocation.has("bios") || invocation.has("cdrom") ||
                  invocation.has("pflash") || invocation.has("floppy") || config.firmware == Firmware::uefi ||
                  invocation.has("boot") || invocation.has("disk");
  bool pc = config.kernel.empty() && firmware;
  bool express = config.secureBoot || invocation.has("pcie-port");
  std::string board = invocation.value("board", !pc ? "micro" : express ? "q35" : "pc");
  config.board = board == "micro" ? Board::micro : Board::pc;
  config.q35 = board == "q35";
  config.pciePorts = invocation.all("pcie-port");
}

Status readNets(const Invocation& invocation, MachineConfig& config) {
  std::vector<std::string> texts = invocation.all("net");
  if (texts.empty() && !config.nets.empty()) return {};
  if (texts.empty()) texts = {"user"};
  for (const std::string& text : texts) {
    auto net = parseNet(text);
    if (!net) return std::move(net).error();
    if (!*net && texts.size() > 1) {
      return Error(ErrorKind::invalidArgument, "--net none with another --net").withHint("leave one of them out");
    }
    if (*net) config.nets.push_back(std::move(**net));
  }
  return {};
}

}  // namespace

Result<RunOptions> runOptionsFrom(const Invocation& invocation) {
  RunOptions options;
  MachineConfig& config = options.machine;
  config.name = invocation.value("name");
  if (invocation.has("name")) {
    if (Status good = control::checkMachineName(config.name); !good) return std::move(good).error();
  }
  config.kernel = invocation.value("kernel");
  if (Status s = readFirmware(invocation, config); !s) return std::move(s).error();
  readBoard(invocation, config);
  if (config.kernel.empty() && config.board == Board::micro) {
    return Error(ErrorKind::invalidArgument, "a machine needs a kernel")
        .withHint(
            "name one with --kernel FILE, or something to boot with --disk FILE, --cdrom FILE, --floppy FILE or "
            "--machine FILE");
  }
  config.initrds = invocation.all("initrd");
  config.append = join(invocation.all("append"), " ");
  readEngineOptions(invocation, config);
  config.trace = join(invocation.all("trace"), ",");
  if (Status known = checkTrace(config.trace); !known) return std::move(known).error();
  config.noReboot = invocation.has("no-reboot");
  config.testDevice = invocation.has("test-device");
  config.balloon = !invocation.has("no-balloon");
  std::string vga = invocation.value("vga", "std");
  config.graphics = vga == "virtio" ? Graphics::virtio : vga == "none" ? Graphics::none : Graphics::std;
  if (config.graphics == Graphics::none && invocation.has("vnc")) {
    return Error(ErrorKind::invalidArgument, "--vnc shows a display, and --vga none leaves it out")
        .withHint("leave one of them out");
  }
  std::string pointer = invocation.value("pointer", "virtio");
  config.pointer = pointer == "usb" ? Pointer::usb : pointer == "ps2" ? Pointer::ps2 : Pointer::virtio;
  config.virtioConsole = invocation.value("console", "serial") == "virtio";
  options.detach = invocation.has("detach");
  options.stats = invocation.has("stats");
  options.sharePages = invocation.has("share-pages");
  Status status;
  if (invocation.has("machine")) status = applyDescription(invocation.value("machine"), !invocation.has("net"), config);
  if (status && invocation.has("snapshot")) {
    for (DriveConfig& drive : config.disks) drive.snapshot = true;
  }
  if (status && invocation.has("vnc")) {
    auto address = vnc::parseAddress(invocation.value("vnc"));
    if (!address) return std::move(address).error();
    options.vnc = std::move(*address);
  }
  if (status) status = readCpus(invocation, config);
  if (status) status = readSize(invocation, "memory", config.memory);
  if (status) status = readSize(invocation, "code-cache", config.codeCache);
  if (status) status = readDebugExit(invocation, config);
  if (status) status = readDisks(invocation, config);
  if (status) status = readCdroms(invocation, config);
  if (status) status = readFloppies(invocation, config);
  if (status) status = readNets(invocation, config);
  if (!status) return std::move(status).error();
  return options;
}

std::vector<OptionSpec> runOptionTable() {
  std::vector<OptionSpec> all{
      {.name = "kernel",
       .letter = 'k',
       .value = "FILE",
       .help = "The kernel: a bzImage (64-bit boot protocol), an ELF file with a PVH note, or a multiboot 1 ELF file. "
               "Without one, firmware starts from a disk or CD-ROM.",
       .complete = Complete::file},
      {.name = "initrd",
       .letter = 'i',
       .value = "FILE",
       .help =
           "The initial RAM file system, passed on as it is (gzip and all). For a multiboot kernel, a module and its "
           "arguments: 'FILE ARGUMENTS'.",
       .complete = Complete::file,
       .repeats = true},
      {.name = "append",
       .letter = 'a',
       .value = "STRING",
       .help = "The kernel's command line, for example 'console=ttyS0 root=/dev/vda'. Several are joined with spaces.",
       .repeats = true},
      {.name = "disk",
       .value = "FILE[,SETTING]...",
       .help = "A disk image, the guest's next virtio disk (vda, vdb...). Settings: format=FORMAT (otherwise by "
               "content), readonly, snapshot (writes are dropped at the end), bus=BUS (virtio; ahci, nvme, scsi; ide, "
               "of the pc board), unit=N (place on the IDE: 0 to 3), bootindex=N (firmware "
               "starts from the lowest first), "
               "allow-path=PATH (a file or folder that names inside the image may lead to, such as its backing image; "
               "without it they lead into the image's own folder and below). "
               "A comma in the name is written ',,'.",
       .complete = Complete::file,
       .repeats = true},
      {.name = "machine",
       .value = "FILE",
       .help = "The machine.json that 'lodge image import' made: its CPUs, memory, disks, CD-ROM drives and network "
               "cards. Other options add to it or say otherwise.",
       .complete = Complete::file},
      {.name = "cdrom",
       .value = "FILE[,SETTING]...",
       .help = "A CD-ROM drive with this image (ISO 9660) in it; 'none' for an empty one. Settings: bus=BUS "
               "(ide, ahci, scsi), unit=N and bootindex=N as of --disk. See 'lodge insert'.",
       .complete = Complete::file,
       .repeats = true},
      {.name = "floppy",
       .value = "FILE[,SETTING]...",
       .help = "A floppy drive of the pc board with this image, of 160K to 2880K, in it; 'none' for an empty one. "
               "Settings: readonly, snapshot. Two drives at most. See 'lodge insert'.",
       .complete = Complete::file,
       .repeats = true},
      {.name = "board",
       .value = "BOARD",
       .help = "What the machine is built like: 'micro' starts a kernel at once; 'pc' has firmware, IDE and a display, "
               "and starts any operating system from its disk or CD-ROM; 'q35' is a pc with PCI Express and, for UEFI "
               "firmware, system management mode. Without it, pc is for machines without --kernel.",
       .choices = {"micro", "pc", "q35"}},
      {.name = "pcie-port",
       .value = "DEVICE",
       .help = "Put this device of the q35 board behind a PCI Express root port of its own: disk0, net0, nvme0, ahci0, "
               "scsi, rng, balloon, tablet, gpu, usb and so on (disk0 is the first virtio disk), 'all' for each of "
               "them, 'none' for a port with nothing behind it.",
       .repeats = true},
      {.name = "bios",
       .value = "FILE",
       .help = "The pc board's firmware image; SeaBIOS if not given.",
       .complete = Complete::file},
      {.name = "firmware",
       .value = "KIND",
       .help = "What the pc board starts with: 'bios' is SeaBIOS, as if nothing is given; 'uefi' is OVMF, whose "
               "variables stay for a machine with a --name (see --uefi-vars).",
       .choices = {"bios", "uefi"}},
      {.name = "uefi-vars",
       .value = "FILE",
       .help = "Where the variables of UEFI firmware stay; made if it does not exist. If not given: "
               "lodge/uefi/NAME.fd in the user's data folder for a machine with a --name, else nowhere.",
       .complete = Complete::file},
      {.name = "secure-boot",
       .help =
           "UEFI firmware starts what Microsoft's keys, or those that the user adds, have signed, and nothing else; on "
           "the q35 board."},
      {.name = "pflash",
       .value = "FILE[,readonly]",
       .help = "A flash chip with firmware, instead of what --firmware names; the guest's changes go to the file. The "
               "first one ends at 4 GiB (OVMF's code), the second one ends where the first begins (its variables).",
       .complete = Complete::file,
       .repeats = true},
      {.name = "boot",
       .value = "ORDER",
       .help =
           "What the pc board's firmware starts from, in this order: a for floppy drives, c for disks, d for CD-ROM "
           "drives, n for the network (by iPXE, of the package ipxe-qemu). 'cad' if not given."},
      {.name = "vnc",
       .value = "[ADDRESS]:DISPLAY",
       .help =
           "Show the pc board's screen to VNC clients, at port 5900 + DISPLAY of the loopback address, or of ADDRESS; "
           "or unix:PATH, a Unix socket. With ,password-file=FILE behind it clients need the password; with "
           ",tls-cert=FILE,tls-key=FILE they come by TLS (VeNCrypt), with ,tls by TLS without a certificate."},
      {.name = "vga",
       .value = "KIND",
       .help = "The pc board's graphics: 'std', as if nothing is given, is a VGA with a frame buffer; 'virtio' has a "
               "virtio GPU beside it, which shows the screen once the guest's driver uses it; with 'none' there are no "
               "graphics, and SeaBIOS shows its screen and takes keys at the first serial port.",
       .choices = {"std", "virtio", "none"}},
      {.name = "pointer",
       .value = "KIND",
       .help = "The pc board's pointer: 'virtio', as if nothing is given, is a tablet, which is where a VNC client's "
               "pointer is, for guests with a virtio input driver (Linux); 'usb' is a USB tablet, which any operating "
               "system knows; 'ps2' is a mouse alone, which both others have beside them.",
       .choices = {"virtio", "usb", "ps2"}},
      {.name = "boot-menu", .help = "The pc board's firmware shows its boot menu."},
      {.name = "snapshot", .help = "Drop the writes to all disks at the end: image files are not changed."},
      {.name = "cpus", .letter = 'c', .value = "N", .help = "How many CPUs, 1 to 64; 1 if not given."},
      {.name = "memory", .letter = 'm', .value = "SIZE", .help = "How much memory: 512M, 1G, 1.5G; 1G if not given."},
      {.name = "net",
       .letter = 'n',
       .value = "KIND[,SETTING]...",
       .help =
           "A network card. 'user', as if nothing is given: NAT without privileges, DHCP, DNS; the host is 10.0.2.2. "
           "'tap,ifname=NAME': a tap device of the host that exists (vhost=on|off|auto: whether the host's kernel "
           "moves its "
           "frames; where it can, if not given). 'none': no card. Settings of user: forward=tcp:127.0.0.1:2222:22 "
           "(protocol, host address and port, guest port; may be "
           "repeated), mac=52:54:00:12:34:56, hostname=NAME, ipv6=off, tftp=FOLDER (whose "
           "files the guest may read by TFTP), bootfile=NAME (what DHCP names for starting from the network), "
           "restricted (no way out). Or the name of a network ('lodge help network create'), which is brought up if it "
           "is "
           "not; settings: mac=, ip=ADDRESS, rate=100M, delay=20ms, loss=1%, vlan=N, trunk=N+N (tagged), mirror=PORT "
           "(copies of another port's frames), link=down, spoof=on (frames under other addresses pass), "
           "direct=on|off|auto "
           "(a device of its own in the bridge of a nat, internal or bridge network, past Lodge's switch, for guests "
           "that are "
           "trusted; auto: where vhost-net can move its frames; off, if not given), vhost=on|off|auto. Of any card: "
           "queues=N (pairs of queues, 1 to 8; one a CPU, 4 at most, if not given).",
       .repeats = true},
      {.name = "name",
       .value = "NAME",
       .help = "The machine's name, unique among the user's running machines: letters, digits, '-', '_' and '.'; vm1, "
               "vm2... if not given."},
      {.name = "detach",
       .letter = 'd',
       .help = "Return to the shell once the machine runs, and print its name. 'lodge console' shows its console."},
      {.name = "console",
       .value = "DEVICE",
       .help =
           "What the terminal is to the guest: 'serial' (ttyS0), as if nothing is given, or 'virtio' (hvc0), which is "
           "faster and follows the window's size. What the guest writes to ttyS0 is shown in both cases.",
       .choices = {"serial", "virtio"}},
      {.name = "cpu",
       .value = "MODEL",
       .help = "The CPU that the guest sees: host (all that can be offered here; the default), or one that is the same "
               "on every "
               "host that can have it: x86-64-v2, x86-64-v3, x86-64-v4 (with AVX-512). ',tsc-frequency=HZ' after it "
               "gives the "
               "guest's time stamp counter another rate than the host's (100M to 25.5G; as 2400000000 or 2.4G)."},
      {.name = "no-reboot", .help = "A reset ends the machine; a triple fault too, as a crash."},
      {.name = "no-balloon", .help = "Leave out the balloon device, through which a guest gives memory back."},
      {.name = "share-pages",
       .help = "When the machine is idle, pages of its memory that are zero go back to the host, and those that others "
               "of your machines with this option have, too, are held once for all of them. Another machine's guest "
               "might find out by the time that an access takes which pages it has. Not on the kvm engine."},
      {.name = "code-cache", .value = "SIZE", .help = "The most memory for translated code; 128M if not given."},
      {.name = "debug-exit",
       .value = "PORT",
       .help = "Put an isa-debug-exit device at this I/O port: a write of V ends the machine with exit status (V << 1) "
               "| 1."},
      {.name = "test-device",
       .help = "Add the device that CPU test kernels use (ports 0xe0 to 0xe8 and 0x2000, memory at 0xff000000)."},
      {.name = "stats", .help = "Write the machine's counters to standard error at its end (see also 'lodge stats')."},
      {.name = "trace",
       .value = "WHAT,...",
       .help = "Write what happens inside to standard error (see Tracing).",
       .repeats = true},
  };
  auto engines = engineOptionTable();
  auto place = std::ranges::find(all, "cpu", &OptionSpec::name);
  all.insert(place, std::make_move_iterator(engines.begin()), std::make_move_iterator(engines.end()));
  return all;
}

}  // namespace lodge::cli
