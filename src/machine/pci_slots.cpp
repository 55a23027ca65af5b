// SPDX-License-Identifier: Apache-2.0
#include "machine/pci_slots.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/text.h"

namespace lodge {

namespace {
constexpr unsigned kSlots = 32;
}

bool PciSlots::wantsPort(const std::string& name) {
  bool wanted = false;
  for (std::size_t n = 0; n < wanted_.size(); ++n) {
    if (wanted_[n] != name && wanted_[n] != kAll) continue;
    wanted = met_[n] = true;
  }
  return wanted;
}

Result<unsigned> PciSlots::takeSlot(const std::string& name) {
  if (next_ < kSlots) return next_++;
  return Error(ErrorKind::outOfMemory, fmt::format("no PCI slot is left for {}", name))
      .withHint("leave out some of the disks and networks; bus=scsi has all of its disks in one slot");
}

Status PciSlots::plugPort(PciHost& host, unsigned slot, PciFunction* behind) {
  auto number = static_cast<unsigned>(ports_.size() + 1);
  ports_.push_back(std::make_unique<PciePort>(number, fmt::format("pcie-port {}", number)));
  return host.plugPort(slot, *ports_.back(), behind);
}

Result<PciSlots::Place> PciSlots::plug(PciHost& host, PciFunction& function, const std::string& name) {
  names_.push_back(name);
  auto slot = takeSlot(name);
  if (!slot) return std::move(slot).error();
  if (wantsPort(name)) {
    if (Status s = plugPort(host, *slot, &function); !s) return std::move(s).error();
    return Place{fmt::format("/pci@i0cf8/pci-bridge@{:x}/", *slot), "0"};
  }
  if (Status s = host.plug(*slot, function); !s) return std::move(s).error();
  return Place{"/pci@i0cf8/", fmt::format("{:x}", *slot)};
}

Status PciSlots::finish(PciHost& host) {
  for (std::size_t n = 0; n < wanted_.size(); ++n) {
    if (wanted_[n] == kNone) {
      auto slot = takeSlot("a PCI Express port");
      if (!slot) return std::move(slot).error();
      if (Status s = plugPort(host, *slot, nullptr); !s) return s;
    } else if (!met_[n]) {
      return Error(ErrorKind::invalidArgument, fmt::format("--pcie-port {}: no such device", inQuotes(wanted_[n])))
          .withHint(fmt::format("this machine has {}; and there are 'all' and 'none'", fmt::join(names_, ", ")));
    }
  }
  return {};
}

void PciSlots::transfer(state::Snapshot& snapshot) {
  for (auto& port : ports_) snapshot.section(port->name(), 1, [&](state::Archive& a) { port->transfer(a); });
}

}  // namespace lodge
