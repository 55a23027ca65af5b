// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace lodge::image::ovf {

// A machine as DMTF's Open Virtualization Format (DSP0243, versions 1.0 to 2.0) describes it.

enum class Bus : std::uint8_t { ide, scsi, sata, nvme, virtio, other };
std::string_view toString(Bus bus);

struct Disk {
  std::string id;
  std::string file;              ///< a name in the package; empty: a new, empty disk
  std::uint64_t fileBytes = 0;   ///< as the descriptor says; 0: it does not
  std::uint64_t capacity = 0;    ///< bytes; 0: the image knows
  std::uint64_t populated = 0;   ///< bytes with content, 0: unknown
  bool streamOptimized = false;  ///< that kind of VMDK (of what is written)
  Bus bus = Bus::other;
  std::string controller;  ///< the bus's model ("lsilogic", "AHCI"), may be empty
  unsigned controllerNumber = 0, unit = 0;
};

struct CdDrive {
  std::string file;  ///< empty: no medium
};

struct Nic {
  std::string network, model, mac;  ///< mac "" or "aa:bb:cc:dd:ee:ff"
};

struct Machine {
  std::string name, description;
  std::string osType;  ///< as its maker calls it ("Ubuntu_64", "rhel6_64Guest"); may be empty
  std::string maker;   ///< VirtualSystemType: "vmx-10", "virtualbox-2.2"
  unsigned osId = 0;   ///< of CIM's list; 0: unknown
  unsigned cpus = 1;
  std::uint64_t memory = 0;  ///< bytes; 0: not said
  bool efi = false, secureBoot = false;
  std::vector<Disk> disks;
  std::vector<CdDrive> cdDrives;
  std::vector<Nic> nics;
  std::vector<std::string> notes;  ///< what was left out, a sentence each
};

struct File {
  std::string name;
  std::uint64_t bytes = 0;
  std::string compression;  ///< "gzip" or empty
};

struct Package {
  std::vector<Machine> machines;
  std::vector<File> files;
};

constexpr std::size_t kMaxDescriptorBytes = 4 << 20;

/// `configuration`: which one of DeploymentOptionSection; empty: the default. Errors: corrupt (naming the place),
/// unsupported, invalidArgument (no such configuration), permissionDenied (a reference out of the package).
Result<Package> parse(std::string_view xml, const std::string& configuration = {});

/// A descriptor that VMware and VirtualBox read: version 1.
std::string write(const Machine& machine);

/// Whether `name` stays inside the package: relative, no "..", no scheme, nothing that a terminal or shell minds.
bool isSafeName(std::string_view name);

/// Bytes from a number with one of DSP0243's units ("byte * 2^20", "MegaBytes", "GB"). Errors: corrupt.
Result<std::uint64_t> bytesIn(std::string_view number, std::string_view unit);

/// One line of a manifest: SHA256(disk.vmdk)= 0123...
struct Digest {
  std::string algorithm;  ///< "SHA1", "SHA256", "SHA384", "SHA512"
  std::string file;
  std::string hex;
};
/// Errors: corrupt (naming the line), unsupported (algorithm).
Result<std::vector<Digest>> parseManifest(std::string_view text);

}  // namespace lodge::image::ovf
