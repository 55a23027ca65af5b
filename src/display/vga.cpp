// SPDX-License-Identifier: Apache-2.0
#include "display/vga.h"

#include <cstring>
#include <mutex>

namespace lodge {

namespace {
constexpr std::uint64_t kPortBase = 0x3b0, kPortCount = 0x30, kDispiPort = 0x1ce, kDispiPorts = 4;
}

Vga::Vga(GuestMemory& memory, unsigned region)
    : PciFunction({.vendor = 0x1234,
                   .device = 0x1111,
                   .revision = 2,
                   .classCode = 0x030000,
                   .subsystemVendor = 0x1af4,
                   .subsystem = 0x1100},
                  "VGA"),
      memory_(memory),
      region_(region) {
  addBar(0, BarKind::memory32, kMemoryBytes, frameBuffer_);
  addBar(2, BarKind::memory32, kPageSize, registerBar_);
}

Status Vga::plugPorts(IoBus& ports, IoBus& mmio) {
  if (Status s = ports.add(kPortBase, kPortCount, ports_, "VGA"); !s) return s;
  if (Status s = ports.add(kDispiPort, kDispiPorts, dispiPorts_, "VGA"); !s) return s;
  return mmio.add(kWindowBase, kWindowBytes, window_, "VGA");
}

void Vga::reset() {
  PciFunction::reset();
  std::lock_guard lock(mutex_);
  regs_ = {};
  changed_ = true;
}

void Vga::barPlaced(unsigned slot, std::optional<std::uint64_t> base) {
  if (slot != 0) return;
  if (base) {
    memory_.mapRegion(region_, Gpa{*base}, memory_.videoOffset(), kMemoryBytes);
  } else {
    memory_.unmapRegion(region_);
  }
  memory_.mapChanged();
}

std::uint64_t Vga::LiveRange::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(owner.mutex_);
  return (owner.*readLocked)(offset, size);
}

void Vga::LiveRange::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(owner.mutex_);
  (owner.*writeLocked)(offset, size, value);
}

// Guests reach video memory directly; this is for accesses that cross into it.
std::uint64_t Vga::readVideo(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  std::memcpy(&value, video() + offset, size);
  return value;
}

void Vga::writeVideo(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::memcpy(video() + offset, &value, size);
  memory_.writtenAt(memory_.videoOffset() + offset, size);
}

}  // namespace lodge
