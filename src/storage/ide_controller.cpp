// SPDX-License-Identifier: Apache-2.0
#include "storage/ide_controller.h"

namespace lodge {

namespace {
constexpr std::uint64_t kCommandPorts[] = {0x1f0, 0x170}, kControlPorts[] = {0x3f6, 0x376};
constexpr unsigned kTimings = 0x40;
constexpr std::array<std::uint8_t, 4> kChannelsEnabled{0x00, 0x80, 0x00, 0x80};  // IDETIM: decode enable
}  // namespace

IdeController::IdeController(GuestMemory& memory, InterruptLine& irq14, InterruptLine& irq15)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x7010,
                   .revision = 0,
                   .classCode = 0x010180,
                   .subsystemVendor = 0x1af4,
                   .subsystem = 0x1100},
                  "PIIX3 IDE") {
  channels_[0] = std::make_unique<IdeChannel>(memory, irq14);
  channels_[1] = std::make_unique<IdeChannel>(memory, irq15);
  addBar(4, BarKind::io, 16, *this);
  for (unsigned n = 0; n < 5; ++n) makeWritable(kTimings + n, 0xff);
  storeConfig(kTimings, kChannelsEnabled);
}

Status IdeController::plugPorts(IoBus& ports) {
  for (unsigned n = 0; n < channels_.size(); ++n) {
    if (Status s = ports.add(kCommandPorts[n], 8, channels_[n]->commandPorts(), "IDE"); !s) return s;
    if (Status s = ports.add(kControlPorts[n], 1, channels_[n]->controlPort(), "IDE"); !s) return s;
  }
  return {};
}

void IdeController::reset() {
  PciFunction::reset();
  storeConfig(kTimings, kChannelsEnabled);
  for (auto& channel : channels_) channel->reset();
}

std::uint64_t IdeController::read(std::uint64_t offset, unsigned size) {
  return channels_[offset >> 3 & 1]->readBusMaster(offset & 7, size);
}

void IdeController::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  channels_[offset >> 3 & 1]->writeBusMaster(offset & 7, size, value);
}

}  // namespace lodge
