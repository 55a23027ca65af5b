// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <pugixml.hpp>

#include "base/text.h"
#include "image/ovf.h"

namespace lodge::image::ovf {

namespace {

constexpr std::size_t kMostItems = 1000;

/// Resource types of CIM_ResourceAllocationSettingData.
enum Resource : unsigned {
  kProcessor = 3,
  kMemory = 4,
  kIde = 5,
  kScsi = 6,
  kEthernet = 10,
  kFloppy = 14,
  kCdDrive = 15,
  kDvdDrive = 16,
  kDisk = 17,
  kOtherStorage = 20,
};

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, "OVF: " + what);
}

std::string_view localName(const char* name) {
  std::string_view text(name);
  std::size_t colon = text.rfind(':');
  return colon == std::string_view::npos ? text : text.substr(colon + 1);
}

pugi::xml_node child(pugi::xml_node parent, std::string_view name) {
  for (pugi::xml_node node : parent.children()) {
    if (localName(node.name()) == name) return node;
  }
  return {};
}

std::string trimmed(std::string_view text) {
  std::size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string() : std::string(text.substr(first, last - first + 1));
}

std::string textOf(pugi::xml_node parent, std::string_view name) {
  return trimmed(child(parent, name).text().get());
}

std::string attribute(pugi::xml_node node, std::string_view name) {
  for (pugi::xml_attribute a : node.attributes()) {
    if (localName(a.name()) == name) return a.value();
  }
  return {};
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

struct Item {
  std::string instance, parent, subtype, host, connection, address, quantity, units, name;
  unsigned type = 0;
  std::uint64_t onParent = 0;
};

struct DiskEntry {
  std::string fileRef, format, parentRef;
  std::uint64_t capacity = 0, populated = 0;
};

class Parser {
 public:
  explicit Parser(std::string configuration) : configuration_(std::move(configuration)) {}

  Result<Package> run(pugi::xml_node envelope) {
    if (localName(envelope.name()) != "Envelope") return bad("its first element is not an Envelope");
    if (Status read = readFiles(child(envelope, "References")); !read) return std::move(read).error();
    if (Status read = readDisks(envelope); !read) return std::move(read).error();
    if (Status read = readConfigurations(envelope); !read) return std::move(read).error();
    if (Status read = readSystems(envelope, 0); !read) return std::move(read).error();
    if (package_.machines.empty()) return bad("it has no VirtualSystem");
    return std::move(package_);
  }

 private:
  Status readFiles(pugi::xml_node references) {
    for (pugi::xml_node node : references.children()) {
      if (localName(node.name()) != "File") continue;
      File file{attribute(node, "href"), 0, lower(attribute(node, "compression"))};
      if (!isSafeName(file.name)) {
        return Error(ErrorKind::permissionDenied,
                     fmt::format("OVF: the reference {} leads out of the package", inQuotes(file.name)));
      }
      if (!attribute(node, "chunkSize").empty()) {
        return Error(ErrorKind::unsupported, fmt::format("OVF: file {} in chunks", inQuotes(file.name)));
      }
      file.bytes = parseNumber(attribute(node, "size")).value_or(0);
      if (package_.files.size() >= kMostItems) return bad("too many files");
      fileNames_[attribute(node, "id")] = file;
      package_.files.push_back(std::move(file));
    }
    return {};
  }

  Status readDisks(pugi::xml_node envelope) {
    for (pugi::xml_node section : envelope.children()) {
      std::string_view name = localName(section.name());
      if (name != "DiskSection" && name != "Section") continue;
      for (pugi::xml_node node : section.children()) {
        if (localName(node.name()) != "Disk") continue;
        DiskEntry disk;
        disk.fileRef = attribute(node, "fileRef");
        disk.format = attribute(node, "format");
        disk.parentRef = attribute(node, "parentRef");
        std::string capacity = attribute(node, "capacity");
        // A property may stand in its place ("${size}"): then the image knows.
        if (!capacity.empty() && !capacity.starts_with("$")) {
          auto bytes = bytesIn(capacity, attribute(node, "capacityAllocationUnits"));
          if (!bytes) return std::move(bytes).error().context("OVF: disk " + inQuotes(attribute(node, "diskId")));
          disk.capacity = *bytes;
        }
        disk.populated = parseNumber(attribute(node, "populatedSize")).value_or(0);
        if (disks_.size() >= kMostItems) return bad("too many disks");
        disks_[attribute(node, "diskId")] = std::move(disk);
      }
    }
    return {};
  }

  Status readConfigurations(pugi::xml_node envelope) {
    std::vector<std::string> names;
    std::string preferred;
    for (pugi::xml_node node : child(envelope, "DeploymentOptionSection").children()) {
      if (localName(node.name()) != "Configuration") continue;
      names.push_back(attribute(node, "id"));
      std::string marked = lower(attribute(node, "default"));
      if ((marked == "true" || marked == "1") && preferred.empty()) preferred = names.back();
    }
    if (configuration_.empty()) {
      configuration_ = preferred.empty() && !names.empty() ? names.front() : preferred;
      return {};
    }
    if (std::count(names.begin(), names.end(), configuration_) != 0) return {};
    return Error(ErrorKind::invalidArgument, "OVF: it has no configuration " + inQuotes(configuration_))
        .withHint(names.empty() ? "it has none at all" : "it has " + join(names, ", "));
  }

  Status readSystems(pugi::xml_node parent, int depth) {
    if (depth > 8) return bad("collections inside collections inside collections");
    for (pugi::xml_node node : parent.children()) {
      std::string_view name = localName(node.name());
      if (name == "VirtualSystemCollection") {
        if (Status read = readSystems(node, depth + 1); !read) return read;
      }
      // OVF 0.9, of early exports: <Content xsi:type="ovf:VirtualSystem_Type">.
      if (name != "VirtualSystem" && name != "Content") continue;
      if (package_.machines.size() >= kMostItems) return bad("too many systems");
      Machine machine;
      if (Status read = readSystem(node, machine); !read) return read;
      package_.machines.push_back(std::move(machine));
    }
    return {};
  }

  Status readSystem(pugi::xml_node system, Machine& machine) {
    machine.name = textOf(system, "Name");
    if (machine.name.empty()) machine.name = attribute(system, "id");
    if (machine.name.empty()) machine.name = "machine";
    machine.description = textOf(child(system, "AnnotationSection"), "Annotation");
    for (pugi::xml_node section : system.children()) {
      std::string_view name = localName(section.name());
      if (name == "OperatingSystemSection") {
        machine.osId = static_cast<unsigned>(parseNumber(attribute(section, "id"), 100000).value_or(0));
        machine.osType = attribute(section, "osType");
        if (machine.osType.empty()) machine.osType = textOf(section, "OSType");
      } else if (name == "VirtualHardwareSection" || (name == "Section" && child(section, "Item"))) {
        if (Status read = readHardware(section, machine); !read) return read;
      } else if (std::string_view(section.name()) == "vbox:Machine") {
        readVirtualBox(section, machine);
      }
    }
    return {};
  }

  /// What VirtualBox says besides: only what the standard has no words for.
  void readVirtualBox(pugi::xml_node box, Machine& machine) {
    pugi::xml_node hardware = child(box, "Hardware");
    std::string firmware = lower(attribute(child(hardware, "Firmware"), "type"));
    if (firmware.starts_with("efi")) machine.efi = true;
    std::size_t i = 0;
    for (pugi::xml_node adapter : child(hardware, "Network").children()) {
      if (localName(adapter.name()) != "Adapter" || lower(attribute(adapter, "enabled")) != "true") continue;
      if (i >= machine.nics.size()) break;
      Nic& nic = machine.nics[i++];
      if (nic.mac.empty()) nic.mac = macOf(attribute(adapter, "MACAddress"));
    }
  }

  bool isChosen(pugi::xml_node item) const {
    std::string list = trimmed(attribute(item, "configuration"));
    if (list.empty()) return true;
    for (std::string_view one : split(list, ' ')) {
      if (one == configuration_) return true;
    }
    return false;
  }

  static Item readItem(pugi::xml_node node) {
    Item item;
    item.type = static_cast<unsigned>(parseNumber(textOf(node, "ResourceType"), 100000).value_or(0));
    item.instance = textOf(node, "InstanceID");
    if (item.instance.empty()) item.instance = textOf(node, "InstanceId");
    item.parent = textOf(node, "Parent");
    item.subtype = textOf(node, "ResourceSubType");
    item.host = textOf(node, "HostResource");
    item.connection = textOf(node, "Connection");
    item.address = textOf(node, "Address");
    item.quantity = textOf(node, "VirtualQuantity");
    item.units = textOf(node, "AllocationUnits");
    item.name = textOf(node, "ElementName");
    if (item.name.empty()) item.name = textOf(node, "Caption");
    item.onParent = parseNumber(textOf(node, "AddressOnParent"), 100000).value_or(0);
    return item;
  }

  Status readHardware(pugi::xml_node section, Machine& machine) {
    machine.maker = textOf(child(section, "System"), "VirtualSystemType");
    std::map<std::string, Item> items;  // by instance: a configuration's item replaces the common one
    std::vector<std::string> order;
    for (pugi::xml_node node : section.children()) {
      std::string_view name = localName(node.name());
      if (name == "Config") readConfig(node, machine);
      if (name != "Item" && name != "StorageItem" && name != "EthernetPortItem") continue;
      if (!isChosen(node)) continue;
      Item item = readItem(node);
      if (order.size() >= kMostItems) return bad("too many items of hardware");
      std::string key = item.instance.empty() ? fmt::format("#{}", order.size()) : item.instance;
      if (items.count(key) == 0) order.push_back(key);
      items[key] = std::move(item);
    }
    for (const std::string& key : order) {
      if (Status added = addItem(items[key], items, machine); !added) return added;
    }
    return {};
  }

  static void readConfig(pugi::xml_node node, Machine& machine) {
    std::string key = attribute(node, "key"), value = lower(attribute(node, "value"));
    if (key == "firmware") machine.efi = value == "efi";
    if (key == "bootOptions.efiSecureBootEnabled") machine.secureBoot = value == "true";
  }

  Status addItem(const Item& item, const std::map<std::string, Item>& items, Machine& machine) {
    switch (item.type) {
      case kProcessor: {
        auto cpus = parseNumber(item.quantity, 65536);
        if (!cpus || *cpus == 0) return bad(fmt::format("{} processors", inQuotes(item.quantity)));
        machine.cpus = static_cast<unsigned>(*cpus);
        return {};
      }
      case kMemory: {
        auto bytes = bytesIn(item.quantity, item.units);
        if (!bytes) return std::move(bytes).error().context("OVF: memory");
        machine.memory = *bytes;
        return {};
      }
      case kEthernet:
        machine.nics.push_back({item.connection, item.subtype, macOf(item.address)});
        return {};
      case kCdDrive:
      case kDvdDrive:
        return addCdDrive(item, machine);
      case kDisk:
        return addDisk(item, items, machine);
      default:
        return {};
    }
  }

  static std::string macOf(const std::string& text) {
    std::string digits;
    for (char c : text) {
      if (std::isxdigit(static_cast<unsigned char>(c)))
        digits += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      else if (c != ':' && c != '-')
        return {};
    }
    if (digits.size() != 12) return {};
    std::string mac;
    for (std::size_t i = 0; i < 12; i += 2) mac += (i == 0 ? "" : ":") + digits.substr(i, 2);
    return mac;
  }

  /// "ovf:/disk/vmdisk1", "/disk/vmdisk1" and older "vmdisk1" forms: what kind, and which.
  static std::pair<std::string, std::string> resourceOf(std::string text) {
    if (text.starts_with("ovf:")) text = text.substr(4);
    while (text.starts_with("/")) text = text.substr(1);
    std::size_t slash = text.find('/');
    if (slash == std::string::npos) return {"", text};
    return {text.substr(0, slash), text.substr(slash + 1)};
  }

  Status addCdDrive(const Item& item, Machine& machine) {
    CdDrive drive;
    auto [kind, id] = resourceOf(item.host);
    if (kind == "file") {
      auto file = fileNames_.find(id);
      if (file == fileNames_.end()) return bad(fmt::format("a CD drive of file {}, which is not there", inQuotes(id)));
      drive.file = file->second.name;
    }
    machine.cdDrives.push_back(std::move(drive));
    return {};
  }

  Status addDisk(const Item& item, const std::map<std::string, Item>& items, Machine& machine) {
    auto [kind, id] = resourceOf(item.host);
    Disk disk;
    disk.id = id;
    std::string fileRef;
    if (kind == "file") {
      fileRef = id;
    } else if (auto entry = disks_.find(id); entry != disks_.end()) {
      fileRef = entry->second.fileRef;
      disk.capacity = entry->second.capacity;
      disk.populated = entry->second.populated;
      if (!entry->second.parentRef.empty()) {
        return Error(ErrorKind::unsupported, fmt::format("OVF: disk {} has a parent disk", inQuotes(id)));
      }
    } else {
      return bad(fmt::format("hardware item {} is of disk {}, which is not there", inQuotes(item.name), inQuotes(id)));
    }
    if (!fileRef.empty()) {
      auto file = fileNames_.find(fileRef);
      if (file == fileNames_.end()) {
        return bad(fmt::format("disk {} is in file {}, which is not there", inQuotes(id), inQuotes(fileRef)));
      }
      disk.file = file->second.name;
      disk.fileBytes = file->second.bytes;
      if (!file->second.compression.empty() && file->second.compression != "identity") {
        return Error(ErrorKind::unsupported, fmt::format("OVF: file {} is compressed with {}", inQuotes(disk.file),
                                                         inQuotes(file->second.compression)))
            .withHint("unpack it and take the compression attribute out of the descriptor");
      }
    } else if (disk.capacity == 0) {
      return bad(fmt::format("disk {} has neither a file nor a capacity", inQuotes(id)));
    }
    disk.unit = static_cast<unsigned>(item.onParent);
    if (auto parent = items.find(item.parent); parent != items.end()) setBus(parent->second, disk);
    machine.disks.push_back(std::move(disk));
    return {};
  }

  static void setBus(const Item& controller, Disk& disk) {
    std::string model = lower(controller.subtype);
    disk.controller = controller.subtype;
    disk.controllerNumber = static_cast<unsigned>(parseNumber(controller.address, 1000).value_or(0));
    if (model.find("nvme") != std::string::npos)
      disk.bus = Bus::nvme;
    else if (model.find("ahci") != std::string::npos || model.find("sata") != std::string::npos)
      disk.bus = Bus::sata;
    else if (model.starts_with("virtio") && controller.type != kScsi)
      disk.bus = Bus::virtio;
    else if (controller.type == kIde)
      disk.bus = Bus::ide;
    else if (controller.type == kScsi)
      disk.bus = Bus::scsi;
  }

  std::string configuration_;
  Package package_;
  std::map<std::string, File> fileNames_;
  std::map<std::string, DiskEntry> disks_;
};

}  // namespace

Result<Package> parse(std::string_view xml, const std::string& configuration) {
  if (xml.size() > kMaxDescriptorBytes) return bad("a descriptor of more than 4 MiB");
  // No OVF needs them, and entities are how XML reads other files or grows without end.
  if (xml.find("<!DOCTYPE") != std::string_view::npos || xml.find("<!ENTITY") != std::string_view::npos) {
    return Error(ErrorKind::unsupported, "OVF: a document type definition");
  }
  pugi::xml_document document;
  pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size(), pugi::parse_default);
  if (!parsed) return bad(fmt::format("not XML at byte {}: {}", parsed.offset, parsed.description()));
  return Parser(configuration).run(document.document_element());
}

}  // namespace lodge::image::ovf
