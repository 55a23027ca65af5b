// SPDX-License-Identifier: Apache-2.0
// What stands around /dev/kvm: modules, nesting, other hypervisors, capabilities.
#include <filesystem>

#include "base/text.h"
#include "cli/doctor.h"
#include "cli/host_files.h"
#include "engine/kvm/capabilities.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

bool hasModule(const std::string& name) {
  std::error_code ignored;
  return std::filesystem::exists("/sys/module/" + name, ignored);
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

Finding examineModules() {
  Finding finding{.key = "modules", .title = "Kernel modules", .text = {}};
  std::vector<std::string> loaded;
  for (const char* name : {"kvm", "kvm_intel", "kvm_amd", "vhost_net", "vhost_vsock", "tun", "vfio_pci"}) {
    bool there = hasModule(name);
    finding.facts[name] = there;
    if (there) loaded.emplace_back(name);
  }
  // Lodge's networks do without: packets pass its own switches, which check and count them.
  std::error_code ignored;
  finding.facts["vhostNetDevice"] = std::filesystem::exists("/dev/vhost-net", ignored);
  bool vendor = hasModule("kvm_intel") || hasModule("kvm_amd");
  finding.text = loaded.empty() ? "none of KVM's" : listed(loaded);
  if (!vendor) {
    finding.grade = Grade::note;
    finding.text +=
        ": neither kvm_intel nor kvm_amd, which bring /dev/kvm; 'modprobe kvm_intel' or 'modprobe kvm_amd' "
        "on a host whose processor has vmx or svm";
  }
  finding.text += finding.facts["vhostNetDevice"] == true ? "; /dev/vhost-net is there, and not used"
                                                          : "; no /dev/vhost-net, which nothing here needs";
  return finding;
}

Finding examineNesting() {
  Finding finding{.key = "nested", .title = "Nested guests", .text = {}};
  for (const char* module : {"kvm_intel", "kvm_amd"}) {
    std::string value = hostFile(std::string("/sys/module/") + module + "/parameters/nested");
    if (value.empty()) continue;
    bool on = value == "Y" || value == "1";
    finding.facts = {{"module", module}, {"on", on}};
    finding.text = fmt::format("{} lets guests be hosts: {}", module, on ? "yes" : "no");
    if (!on) finding.text += fmt::format("; 'modprobe -r {0}; modprobe {0} nested=1' turns it on", module);
    return finding;
  }
  finding.grade = Grade::note;
  finding.facts = {{"on", false}};
  finding.text = "no module of KVM's tells";
  return finding;
}

Finding examineOtherHypervisors() {
  Finding finding{.key = "otherHypervisors", .title = "Other hypervisors", .text = "none holds the processor's"};
  std::vector<std::string> held;
  struct Known {
    const char* module;
    const char* product;
  };
  constexpr Known kKnown[] = {{"vboxdrv", "VirtualBox"}, {"vmmon", "VMware"}, {"mshv_root", "Hyper-V"}};
  for (const Known& known : kKnown) {
    if (hasModule(known.module)) held.emplace_back(known.product);
  }
  if (hostFile("/sys/hypervisor/type") == "xen") held.emplace_back("Xen");
  finding.facts = {{"found", held}};
  if (!held.empty()) {
    finding.grade = Grade::note;
    finding.text = listed(held) +
                   ": while its guests run, KVM may have no use of the processor's virtualization; end "
                   "them, or unload its module";
  }
  return finding;
}

Finding examineCapabilities() {
  Finding finding{.key = "kvmCapabilities", .title = "KVM's abilities", .text = {}};
  auto all = kvm::capabilities();
  if (all.empty()) {
    finding.grade = Grade::note;
    finding.text = "not known: /dev/kvm cannot be asked";
    return finding;
  }
  std::vector<std::string> missing, with, without;
  for (const kvm::Capability& c : all) {
    finding.facts[std::string(c.name)] = c.value;
    (c.value != 0 ? with : c.needed ? missing : without).emplace_back(c.name);
  }
  finding.text = missing.empty() ? "version 12 of its interface, with all that the engine needs"
                                 : "missing what the engine needs: " + listed(missing);
  finding.text += "; it has " + listed(with);
  if (!without.empty()) finding.text += "; without " + listed(without);
  if (!missing.empty()) finding.grade = Grade::note;
  return finding;
}

}  // namespace lodge::cli
