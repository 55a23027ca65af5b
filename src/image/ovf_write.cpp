// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "base/units.h"
#include "image/ovf.h"

namespace lodge::image::ovf {

namespace {

std::string escaped(std::string_view text) {
  std::string result;
  for (char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        // XML 1.0 has no other control characters.
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') result += c;
    }
  }
  return result;
}

/// rasd: elements, in the alphabetical order that the schema asks for.
struct Element {
  const char* name;
  std::string text;
};

class Writer {
 public:
  explicit Writer(const Machine& machine) : machine_(machine) {}

  std::string run() {
    text_ = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    open(
        "<Envelope ovf:version=\"1.0\" xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
        "xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" "
        "xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" "
        "xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" "
        "xmlns:vmw=\"http://www.vmware.com/schema/ovf\" "
        "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">");
    references();
    diskSection();
    networkSection();
    system();
    close("</Envelope>");
    return std::move(text_);
  }

 private:
  void line(const std::string& content) { text_ += std::string(depth_ * 2, ' ') + content + "\n"; }
  void open(const std::string& tag) {
    line(tag);
    ++depth_;
  }
  void close(const std::string& tag) {
    --depth_;
    line(tag);
  }
  void info(const char* about) { line(fmt::format("<Info>{}</Info>", about)); }

  void references() {
    open("<References>");
    for (std::size_t i = 0; i < machine_.disks.size(); ++i) {
      const Disk& disk = machine_.disks[i];
      line(fmt::format("<File ovf:href=\"{}\" ovf:id=\"file{}\" ovf:size=\"{}\"/>", escaped(disk.file), i + 1,
                       disk.fileBytes));
    }
    close("</References>");
  }

  void diskSection() {
    open("<DiskSection>");
    info("The disks");
    for (std::size_t i = 0; i < machine_.disks.size(); ++i) {
      const Disk& disk = machine_.disks[i];
      std::string format = "http://www.vmware.com/interfaces/specifications/vmdk.html";
      if (disk.streamOptimized) format += "#streamOptimized";
      std::string populated = disk.populated == 0 ? "" : fmt::format(" ovf:populatedSize=\"{}\"", disk.populated);
      line(
          fmt::format("<Disk ovf:capacity=\"{}\" ovf:capacityAllocationUnits=\"byte\" ovf:diskId=\"vmdisk{}\" "
                      "ovf:fileRef=\"file{}\" ovf:format=\"{}\"{}/>",
                      disk.capacity, i + 1, i + 1, format, populated));
    }
    close("</DiskSection>");
  }

  void networkSection() {
    open("<NetworkSection>");
    info("The networks");
    std::set<std::string> names;
    for (const Nic& nic : machine_.nics) {
      if (!names.insert(networkOf(nic)).second) continue;
      open(fmt::format("<Network ovf:name=\"{}\">", escaped(networkOf(nic))));
      line(fmt::format("<Description>The network {}</Description>", escaped(networkOf(nic))));
      close("</Network>");
    }
    close("</NetworkSection>");
  }
  static std::string networkOf(const Nic& nic) { return nic.network.empty() ? "NAT" : nic.network; }

  void system() {
    open(fmt::format("<VirtualSystem ovf:id=\"{}\">", escaped(machine_.name)));
    info("A machine");
    line(fmt::format("<Name>{}</Name>", escaped(machine_.name)));
    unsigned osId = machine_.osId == 0 ? 102 : machine_.osId;  // 102: another 64-bit system
    std::string osType = machine_.osType.empty() ? "other3xLinux64Guest" : machine_.osType;
    open(fmt::format("<OperatingSystemSection ovf:id=\"{}\" vmw:osType=\"{}\">", osId, escaped(osType)));
    info("The operating system");
    close("</OperatingSystemSection>");
    if (!machine_.description.empty()) {
      open("<AnnotationSection>");
      info("A note");
      line(fmt::format("<Annotation>{}</Annotation>", escaped(machine_.description)));
      close("</AnnotationSection>");
    }
    hardware();
    close("</VirtualSystem>");
  }

  void item(std::vector<Element> elements, bool required = true) {
    elements.push_back({"InstanceID", std::to_string(instance_++)});
    std::sort(elements.begin(), elements.end(),
              [](const Element& a, const Element& b) { return std::string_view(a.name) < b.name; });
    open(required ? "<Item>" : "<Item ovf:required=\"false\">");
    for (const Element& e : elements) line(fmt::format("<rasd:{}>{}</rasd:{}>", e.name, escaped(e.text), e.name));
    close("</Item>");
  }

  void hardware() {
    open("<VirtualHardwareSection>");
    info("The hardware");
    open("<System>");
    line("<vssd:ElementName>Virtual Hardware Family</vssd:ElementName>");
    line("<vssd:InstanceID>0</vssd:InstanceID>");
    line(fmt::format("<vssd:VirtualSystemIdentifier>{}</vssd:VirtualSystemIdentifier>", escaped(machine_.name)));
    line("<vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>");
    close("</System>");
    std::uint64_t mib = std::max<std::uint64_t>(machine_.memory / 1_MiB, 1);
    item({{"AllocationUnits", "hertz * 10^6"},
          {"Description", "Number of virtual CPUs"},
          {"ElementName", fmt::format("{} virtual CPU(s)", machine_.cpus)},
          {"ResourceType", "3"},
          {"VirtualQuantity", std::to_string(machine_.cpus)}});
    item({{"AllocationUnits", "byte * 2^20"},
          {"Description", "Memory size"},
          {"ElementName", fmt::format("{} MB of memory", mib)},
          {"ResourceType", "4"},
          {"VirtualQuantity", std::to_string(mib)}});
    disks();
    for (std::size_t i = 0; i < machine_.nics.size(); ++i) nic(machine_.nics[i], i);
    if (machine_.efi) {
      line("<vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>");
      line(
          fmt::format("<vmw:Config ovf:required=\"false\" vmw:key=\"bootOptions.efiSecureBootEnabled\" "
                      "vmw:value=\"{}\"/>",
                      machine_.secureBoot));
    }
    close("</VirtualHardwareSection>");
  }

  void disks() {
    // Every system has a driver for AHCI; VirtualBox and VMware read it as this.
    constexpr std::size_t kPorts = 30;
    unsigned controller = 0;
    for (std::size_t i = 0; i < machine_.disks.size(); ++i) {
      if (i % kPorts == 0) {
        controller = instance_;
        item({{"Address", std::to_string(i / kPorts)},
              {"Description", "SATA controller"},
              {"ElementName", fmt::format("SATA controller {}", i / kPorts)},
              {"ResourceSubType", "vmware.sata.ahci"},
              {"ResourceType", "20"}});
      }
      item({{"AddressOnParent", std::to_string(i % kPorts)},
            {"ElementName", fmt::format("Hard disk {}", i + 1)},
            {"HostResource", fmt::format("ovf:/disk/vmdisk{}", i + 1)},
            {"Parent", std::to_string(controller)},
            {"ResourceType", "17"}});
    }
  }

  void nic(const Nic& nic, std::size_t index) {
    std::vector<Element> elements = {{"AddressOnParent", std::to_string(7 + index)},
                                     {"AutomaticAllocation", "true"},
                                     {"Connection", networkOf(nic)},
                                     {"ElementName", fmt::format("Network adapter {}", index + 1)},
                                     {"ResourceSubType", nic.model.empty() ? "E1000" : nic.model},
                                     {"ResourceType", "10"}};
    if (!nic.mac.empty()) elements.push_back({"Address", nic.mac});
    item(std::move(elements));
  }

  const Machine& machine_;
  std::string text_;
  unsigned depth_ = 0, instance_ = 1;
};

}  // namespace

std::string write(const Machine& machine) {
  return Writer(machine).run();
}

}  // namespace lodge::image::ovf
