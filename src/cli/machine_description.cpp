// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_description.h"

#include "base/file.h"
#include "base/text.h"
#include "image/block_file.h"

namespace lodge::cli {

using control::Json;
namespace ovf = image::ovf;

Json describe(const ovf::Machine& machine) {
  Json json = {{"name", machine.name},     {"cpus", machine.cpus},
               {"memory", machine.memory}, {"firmware", machine.efi ? "uefi" : "bios"},
               {"disks", Json::array()},   {"cdDrives", Json::array()},
               {"nets", Json::array()}};
  if (machine.secureBoot) json["secureBoot"] = true;
  if (!machine.description.empty()) json["description"] = machine.description;
  if (!machine.osType.empty()) json["osType"] = machine.osType;
  if (machine.osId != 0) json["osId"] = machine.osId;
  for (const ovf::Disk& disk : machine.disks) {
    json["disks"].push_back({{"path", disk.file}, {"bytes", disk.capacity}, {"bus", std::string(toString(disk.bus))}});
    if (!disk.controller.empty()) json["disks"].back()["controller"] = disk.controller;
  }
  for (const ovf::CdDrive& drive : machine.cdDrives) {
    json["cdDrives"].push_back(drive.file.empty() ? Json::object() : Json{{"path", drive.file}});
  }
  for (const ovf::Nic& nic : machine.nics) {
    Json one = {{"network", nic.network}, {"model", nic.model}};
    if (!nic.mac.empty()) one["mac"] = nic.mac;
    json["nets"].push_back(std::move(one));
  }
  return json;
}

namespace {

/// Reads fields of one object; the first wrong one is kept.
class Fields {
 public:
  explicit Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  std::string text(const char* name) {
    const Json* value = find(name);
    if (!value) return {};
    if (!value->is_string()) return bad(name, "a text"), std::string();
    return value->get<std::string>();
  }
  std::uint64_t number(const char* name, std::uint64_t otherwise, std::uint64_t max) {
    const Json* value = find(name);
    if (!value) return otherwise;
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() > max) return bad(name, "a number"), otherwise;
    return value->get<std::uint64_t>();
  }
  bool flag(const char* name) {
    const Json* value = find(name);
    if (!value) return false;
    if (!value->is_boolean()) return bad(name, "true or false"), false;
    return value->get<bool>();
  }
  const Json& list(const char* name) {
    static const Json kNone = Json::array();
    const Json* value = find(name);
    if (!value) return kNone;
    if (!value->is_array()) return bad(name, "a list"), kNone;
    return *value;
  }
  Status status() const { return problem_.empty() ? Status() : Status(Error(ErrorKind::corrupt, problem_)); }

 private:
  const Json* find(const char* name) {
    if (!object_.is_object()) return bad(name, "an object around it"), nullptr;
    auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  void bad(const char* name, const char* due) {
    if (problem_.empty()) problem_ = fmt::format("{}{}: {} is due", where_, name, due);
  }

  const Json& object_;
  std::string where_, problem_;
};

Status readLists(Fields& top, const std::string& folder, DescribedMachine& result) {
  for (const Json& entry : top.list("disks")) {
    Fields fields(entry, "disks: ");
    ovf::Disk disk;
    disk.file = fields.text("path");
    result.formats.push_back(fields.text("format"));
    if (Status good = fields.status(); !good) return good;
    if (disk.file.empty()) return Error(ErrorKind::corrupt, "disks: path: a file is due");
    if (!disk.file.starts_with("/") && folder != ".") disk.file = folder + "/" + disk.file;
    result.machine.disks.push_back(std::move(disk));
  }
  for (const Json& entry : top.list("cdDrives")) {
    Fields fields(entry, "cdDrives: ");
    std::string file = fields.text("path");
    if (Status good = fields.status(); !good) return good;
    if (!file.empty() && !file.starts_with("/") && folder != ".") file = folder + "/" + file;
    result.cds.push_back(std::move(file));
  }
  for (const Json& entry : top.list("nets")) {
    Fields fields(entry, "nets: ");
    result.machine.nics.push_back({fields.text("network"), fields.text("model"), fields.text("mac")});
    if (Status good = fields.status(); !good) return good;
  }
  return top.status();
}

}  // namespace

Result<DescribedMachine> readDescription(const std::string& path) {
  auto bytes = readFile(path, 1 << 20);
  if (!bytes) return std::move(bytes).error();
  const auto* text = reinterpret_cast<const char*>(bytes->data());
  Json json = Json::parse(text, text + bytes->size(), nullptr, false);
  if (json.is_discarded()) return Error(ErrorKind::corrupt, inQuotes(path) + " is not JSON");
  DescribedMachine result;
  Fields top(json, "");
  ovf::Machine& machine = result.machine;
  machine.name = top.text("name");
  machine.description = top.text("description");
  machine.osType = top.text("osType");
  machine.osId = static_cast<unsigned>(top.number("osId", 0, 100000));
  machine.cpus = static_cast<unsigned>(top.number("cpus", 1, 65536));
  machine.memory = top.number("memory", 0, std::uint64_t{1} << 60);
  machine.efi = top.text("firmware") == "uefi";
  machine.secureBoot = top.flag("secureBoot");
  Status read = readLists(top, image::folderOf(path), result);
  if (!read) return std::move(read).error().context("machine description " + inQuotes(path));
  return result;
}

}  // namespace lodge::cli
