// SPDX-License-Identifier: Apache-2.0
#include "control/config_json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

namespace lodge::control {

namespace {

const char* boardName(const MachineConfig& config) {
  return config.board != Board::pc ? "micro" : config.q35 ? "q35" : "pc";
}

const char* busName(DriveBus bus) {
  constexpr std::array kNames{"virtio", "ide", "ahci", "nvme", "scsi"};
  return kNames.at(static_cast<std::size_t>(bus));
}

Json toJson(const DriveConfig& disk) {
  return {{"path", disk.path},         {"format", disk.format}, {"readOnly", disk.readOnly},
          {"snapshot", disk.snapshot}, {"cdrom", disk.cdrom},   {"bus", busName(disk.bus)}};
}

Json toJson(const PortForward& forward) {
  return {{"protocol", forward.udp ? "udp" : "tcp"},
          {"hostAddress", forward.hostAddress},
          {"hostPort", forward.hostPort},
          {"guestAddress", forward.guestAddress},
          {"guestPort", forward.guestPort}};
}

Json toJson(const NetConfig& net) {
  Json json = {{"ipv6", net.user.ipv6}, {"restricted", net.user.restricted}, {"forwards", Json::array()}};
  for (const PortForward& forward : net.user.forwards) json["forwards"].push_back(toJson(forward));
  if (!net.network.empty()) json = {{"network", net.network}, {"port", parseJson(net.port)}};
  if (net.queues != 0) json["queues"] = net.queues;
  if (net.mac) json["mac"] = fmt::format("{:02x}", fmt::join(*net.mac, ":"));
  return json;
}

}  // namespace

Json toJson(const MachineConfig& config) {
  Json json = {{"name", config.name},         {"board", boardName(config)},
               {"bios", config.bios},         {"bootOrder", config.bootOrder},
               {"kernel", config.kernel},     {"initrds", config.initrds},
               {"append", config.append},     {"disks", Json::array()},
               {"nets", Json::array()},       {"cpus", config.cpus},
               {"memory", config.memory},     {"engine", config.engine},
               {"cpuModel", config.cpuModel}, {"codeCache", config.codeCache},
               {"noReboot", config.noReboot}, {"testDevice", config.testDevice},
               {"balloon", config.balloon},   {"virtioConsole", config.virtioConsole},
               {"trace", config.trace},       {"firmware", config.firmware == Firmware::uefi ? "uefi" : "bios"},
               {"uefiVars", config.uefiVars}, {"secureBoot", config.secureBoot},
               {"flash", Json::array()},      {"pciePorts", config.pciePorts}};
  for (const FlashConfig& flash : config.flash) {
    json["flash"].push_back({{"path", flash.path}, {"readOnly", flash.readOnly}, {"keep", flash.keep}});
  }
  json["floppies"] = Json::array();
  for (const FloppyConfig& floppy : config.floppies) {
    json["floppies"].push_back({{"path", floppy.path}, {"readOnly", floppy.readOnly}, {"snapshot", floppy.snapshot}});
  }
  if (config.debugExitPort) json["debugExitPort"] = *config.debugExitPort;
  for (const DriveConfig& disk : config.disks) json["disks"].push_back(toJson(disk));
  for (const NetConfig& net : config.nets) json["nets"].push_back(toJson(net));
  return json;
}

}  // namespace lodge::control
