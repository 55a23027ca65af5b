// SPDX-License-Identifier: Apache-2.0
// Arbitrary port accesses and DMA descriptors against the fw_cfg device.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "device/fw_cfg.h"

using namespace lodge;

// Input: the first 256 bytes are the start of guest RAM (DMA descriptors); then accesses of 6 bytes: offset, size and
// direction, value.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  static std::unique_ptr<GuestMemory> memory = *GuestMemory::create(1_MiB);
  constexpr std::size_t kRam = 256, kAccess = 6;
  if (length < kRam) return 0;
  if (!memory->write(Gpa{0}, std::as_bytes(std::span(data, kRam)))) std::abort();
  FwCfg device(*memory);
  if (!device.addInteger(FwCfg::cpuCount, 4, 2) || !device.addFile("etc/file", {1, 2, 3, 4, 5})) std::abort();
  for (std::size_t at = kRam; at + kAccess <= length; at += kAccess) {
    std::uint64_t offset = data[at] % FwCfg::kPorts;
    unsigned size = 1u << (data[at + 1] & 3) % 3;
    if (offset + size > FwCfg::kPorts) continue;
    if (data[at + 1] & 0x80) {
      device.write(offset, size, loadLe<std::uint32_t>(data + at + 2));
    } else {
      device.read(offset, size);
    }
  }
  return 0;
}
