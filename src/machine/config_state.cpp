// SPDX-License-Identifier: Apache-2.0
#include "machine/config_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "image/image_files.h"
#include "machine/flash_files.h"

namespace lodge {

using state::Archive;

namespace {

template <class T, class Each>
void transferList(Archive& a, std::vector<T>& list, std::size_t most, const char* what, Each&& each) {
  std::size_t number = a.count(list.size(), most, what);
  if (a.loading()) list.assign(number, T());
  for (T& item : list) each(item);
}

template <class T>
void transferEnum(Archive& a, T& value, T last, const char* what) {
  a(value);
  a.require(value <= last, what);
  if (!a.ok()) value = T{};
}

void transferDrive(Archive& a, DriveConfig& d) {
  a(d.path, d.format, d.readOnly, d.snapshot);
  transferEnum(a, d.cache, image::CacheMode::unsafe, "a disk's cache mode");
  a(d.allowedPaths);
  transferEnum(a, d.bus, DriveBus::scsi, "a disk's bus");
  a(d.unit, d.cdrom, d.bootIndex);
}

void transferNet(Archive& a, NetConfig& n) {
  transferList(a, n.user.forwards, 4096, "the number of port forwards",
               [&](PortForward& f) { a(f.udp, f.hostAddress, f.hostPort, f.guestAddress, f.guestPort); });
  a(n.user.ipv6, n.user.restricted, n.user.hostname, n.user.tftp, n.user.bootFile, n.tap, n.network, n.port, n.mac);
  if (a.version() >= 2) a(n.queues);
}

/// A file's absolute path; empty and names of network disks stay.
void makeAbsolute(std::string& path) {
  if (path.empty() || path.find("://") != std::string::npos) return;
  std::error_code error;
  auto absolute = std::filesystem::absolute(path, error);
  if (!error) path = absolute.lexically_normal().string();
}

}  // namespace

void transfer(Archive& a, MachineConfig& c) {
  a(c.name);
  transferEnum(a, c.board, Board::pc, "the board");
  a(c.bios, c.q35);
  transferEnum(a, c.firmware, Firmware::uefi, "the firmware");
  a(c.uefiVars, c.secureBoot);
  transferList(a, c.flash, 16, "the number of flash chips",
               [&](FlashConfig& f) { a(f.path, f.readOnly, f.keep, f.blank); });
  a(c.bootOrder, c.bootMenu, c.kernel, c.initrds, c.append);
  transferList(a, c.disks, 64, "the number of disks", [&](DriveConfig& d) { transferDrive(a, d); });
  transferList(a, c.floppies, 4, "the number of floppy drives",
               [&](FloppyConfig& f) { a(f.path, f.readOnly, f.snapshot); });
  transferList(a, c.nets, 64, "the number of networks", [&](NetConfig& n) { transferNet(a, n); });
  a(c.cpus, c.memory, c.engine, c.cpuModel, c.codeCache);
  transferEnum(a, c.pointer, Pointer::ps2, "the pointer");
  transferEnum(a, c.graphics, Graphics::virtio, "the graphics");
  a(c.noReboot, c.debugExitPort, c.testDevice, c.balloon, c.virtioConsole, c.trace);
  if (a.version() >= 3) a(c.pciePorts);
}

MachineConfig withAbsolutePaths(MachineConfig c) {
  for (std::string* path : {&c.bios, &c.uefiVars, &c.kernel}) makeAbsolute(*path);
  for (std::string& path : c.initrds) {
    // A multiboot module has its arguments behind the path.
    std::string rest = path.find(' ') == std::string::npos ? "" : path.substr(path.find(' '));
    path.resize(path.size() - rest.size());
    makeAbsolute(path);
    path += rest;
  }
  for (FlashConfig& f : c.flash) {
    makeAbsolute(f.path);
    makeAbsolute(f.blank);
  }
  for (DriveConfig& d : c.disks) {
    makeAbsolute(d.path);
    for (std::string& path : d.allowedPaths) makeAbsolute(path);
  }
  for (FloppyConfig& f : c.floppies) makeAbsolute(f.path);
  for (NetConfig& n : c.nets) makeAbsolute(n.user.tftp);
  return c;
}

namespace {

/// The drive that a change without a name is about: they are made in this order.
std::string firstDrive(const MachineConfig& config) {
  for (bool ide : {true, false}) {
    for (std::size_t n = 0; n < config.disks.size(); ++n) {
      if (config.disks[n].cdrom && (config.disks[n].bus == DriveBus::ide) == ide) return removableDriveName(config, n);
    }
    if (ide && !config.floppies.empty()) return "floppy0";
  }
  return {};
}

}  // namespace

void noteMedium(MachineConfig& config, const MediumChange& change) {
  std::string drive = change.drive.empty() ? firstDrive(config) : change.drive;
  std::string path = change.path;
  makeAbsolute(path);
  for (std::size_t n = 0; n < config.disks.size(); ++n) {
    DriveConfig& d = config.disks[n];
    if (!d.cdrom || removableDriveName(config, n) != drive) continue;
    d.path = path;
    d.format = "raw";
    d.snapshot = false;
  }
  for (std::size_t n = 0; n < config.floppies.size(); ++n) {
    if (drive == fmt::format("floppy{}", n)) config.floppies[n] = {.path = path, .readOnly = change.readOnly};
  }
}

void transfer(Archive& a, SavedDisks& disks) {
  constexpr std::size_t kMostDisks = 64, kMostFiles = 4096;
  transferList(a, disks.disks, kMostDisks, "the number of disks", [&](DiskIdentity& disk) { transfer(a, disk); });
  if (a.version() < 2) return;
  if (!disks.further) disks.further.emplace();
  transferList(a, *disks.further, kMostFiles, "the number of disks' files",
               [&](DiskIdentity& file) { transfer(a, file); });
  disks.network = a.version() >= 4;
}

namespace {

/// Identities of a machine's disks as they are added.
struct Collection {
  const bool network, behind;  ///< whether network disks are looked at, and what is behind the disks
  const bool saves;            ///< what the guest cannot change may be away
  SavedDisks all{.disks = {}, .further = std::vector<DiskIdentity>{}, .network = network};

  Status add(const DiskOptions& disk, bool isGuests) {
    if (disk.path.empty()) return {};
    if (disk.snapshot) {
      return Error(ErrorKind::unsupported,
                   fmt::format("the disk {} was given with 'snapshot': its changes end with this machine and cannot be "
                               "saved",
                               inQuotes(disk.path)))
          .withHint("start the machine with an overlay ('lodge image create -b') as its disk");
    }
    if (Status added = addFile(disk.path, all.disks, saves && !isGuests); !added) return added;
    if (!behind || (!network && image::isNetworkDisk(disk.path))) return {};
    auto files = image::filesOf(disk);
    if (!files) return std::move(files).error().context("look at the disk " + inQuotes(disk.path));
    for (const std::string& file : *files) {
      if (file == disk.path) continue;
      if (Status added = addFile(file, *all.further); !added) return added;
    }
    return {};
  }
  Status addFile(const std::string& path, std::vector<DiskIdentity>& to, bool mayBeAway = false) const {
    if (!network && image::isNetworkDisk(path)) return {};
    auto identity = DiskIdentity::of(path);
    if (!identity && mayBeAway && image::isNetworkDisk(path)) {
      log(LogLevel::warning, "{}; it will not be compared when the machine goes on", identity.error().message());
      identity = DiskIdentity{.path = path};
    }
    if (!identity) return std::move(identity).error();
    to.push_back(std::move(*identity));
    return {};
  }
};

Status compare(const std::vector<DiskIdentity>& saved, const std::vector<DiskIdentity>& now, const char* what) {
  for (std::size_t i = 0; i < saved.size() && i < now.size(); ++i) {
    const DiskIdentity &then = saved[i], &today = now[i];
    if (today.isStill(then)) continue;
    return Error(ErrorKind::invalidArgument,
                 fmt::format("{} {} has changed since the machine was saved: the guest would damage it", what,
                             inQuotes(today.path)))
        .withHint("put it back as it was when the machine was saved");
  }
  if (saved.size() == now.size()) return {};
  return Error(ErrorKind::corrupt, "the state's list of disks is not that of its machine");
}

Result<SavedDisks> collect(const MachineConfig& config, bool network, bool behind, bool saves) {
  Collection disks{network, behind, saves};
  for (const DriveConfig& drive : config.disks) {
    if (Status added = disks.add(drive, !drive.readOnly && !drive.cdrom); !added) return std::move(added).error();
  }
  for (const FloppyConfig& floppy : config.floppies) {
    DiskOptions raw{.path = floppy.path, .format = "raw", .readOnly = floppy.readOnly, .snapshot = floppy.snapshot};
    if (Status added = disks.add(raw, !floppy.readOnly); !added) return std::move(added).error();
  }
  // What a flash chip's file holds is in the machine's memory, too.
  for (const FlashConfig& flash : flashChips(config)) {
    if (!flash.keep || flash.readOnly || flash.path.empty()) continue;
    if (Status added = disks.addFile(flash.path, disks.all.disks); !added) return std::move(added).error();
  }
  return std::move(disks.all);
}

bool isOnNetwork(const DiskIdentity& disk) {
  return image::isNetworkDisk(disk.path);
}

}  // namespace

Result<SavedDisks> disksOf(const MachineConfig& config) {
  return collect(config, true, true, true);
}

Status networkDisksAnswer(const MachineConfig& config) {
  for (const DriveConfig& disk : config.disks) {
    if (disk.readOnly || disk.cdrom || !image::isNetworkDisk(disk.path)) continue;
    if (Status answer = DiskIdentity::answers(disk.path); !answer) return answer;
  }
  return {};
}

Status compareDisks(const SavedDisks& saved, const MachineConfig& config, bool opened) {
  static const std::vector<DiskIdentity> kNone;
  const std::vector<DiskIdentity>& further = saved.further ? *saved.further : kNone;
  // An older state does not tell of them.
  bool network =
      saved.network && (std::ranges::any_of(saved.disks, isOnNetwork) || std::ranges::any_of(further, isOnNetwork));
  if (opened && !network) return {};
  auto now = collect(config, opened, opened || !network, false);
  if (!now) return std::move(now).error();
  std::vector<DiskIdentity> then = saved.disks;
  if (!opened) std::erase_if(then, isOnNetwork);
  if (Status same = compare(then, now->disks, "the disk"); !same) return same;
  return saved.further && opened == network ? compare(further, *now->further, "the file of a disk") : Status{};
}

}  // namespace lodge
