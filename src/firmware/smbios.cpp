// SPDX-License-Identifier: Apache-2.0
#include "firmware/smbios.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "base/units.h"
#include "firmware/byte_writer.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

namespace {
// Handles of the structures, by type.
constexpr std::uint16_t kFirmwareHandle = 0x0000, kSystemHandle = 0x0100, kEnclosureHandle = 0x0300,
                        kProcessorHandle = 0x0400, kMemoryArrayHandle = 0x1000, kMemoryDeviceHandle = 0x1100,
                        kMappedHandle = 0x1300, kBootHandle = 0x2000, kEndHandle = 0x7f00, kNoHandle = 0xfffe;
constexpr std::string_view kManufacturer = "Lodge", kProduct = "Lodge", kVersion = "1";

std::uint64_t mix(std::uint64_t value) {  // the finalizer of SplitMix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

class StructureTable {
 public:
  /// Formatted area without its 4-byte header, and its strings, referred to as 1, 2, ...
  void add(std::uint8_t type, std::uint16_t handle, const ByteWriter& area,
           std::initializer_list<std::string_view> strings = {}) {
    out_.u8(type).u8(area.size() + 4).u16(handle).bytes(area.view());
    for (std::string_view text : strings) out_.text(text, text.size()).u8(0);
    out_.u8(0);
    if (strings.size() == 0) out_.u8(0);
  }
  std::vector<std::uint8_t> take() { return out_.take(); }

 private:
  ByteWriter out_;
};

void addFirmware(StructureTable& table) {  // type 0, 7.1
  ByteWriter area;
  constexpr std::uint64_t kCharacteristicsNotSupported = 1 << 3;
  constexpr std::uint8_t kVirtualMachine = 1 << 4;
  area.u8(1)
      .u8(2)
      .u16(0xf000)
      .u8(3)
      .u8(0)
      .u64(kCharacteristicsNotSupported)
      .u8(0)
      .u8(kVirtualMachine)
      .u8(1)
      .u8(0)
      .u8(0xff)
      .u8(0xff);
  table.add(0, kFirmwareHandle, area, {kManufacturer, kVersion, "01/01/2024"});
}

void addSystem(StructureTable& table, const PlatformDescription& platform) {  // type 1, 7.2
  std::array<std::uint8_t, 16> uuid = machineUuid(platform.machineName);
  // The first three fields are little-endian here (7.2.1).
  std::reverse(uuid.begin(), uuid.begin() + 4);
  std::reverse(uuid.begin() + 4, uuid.begin() + 6);
  std::reverse(uuid.begin() + 6, uuid.begin() + 8);
  constexpr std::uint8_t kPowerSwitch = 6;
  ByteWriter area;
  area.u8(1).u8(2).u8(3).u8(4).bytes(uuid).u8(kPowerSwitch).u8(0).u8(5);
  std::string_view serial =
      platform.machineName.empty() ? std::string_view("lodge") : std::string_view(platform.machineName);
  table.add(1, kSystemHandle, area, {kManufacturer, kProduct, kVersion, serial, "Virtual Machine"});
}

void addEnclosure(StructureTable& table) {  // type 3, 7.4
  constexpr std::uint8_t kOther = 1, kSafe = 3, kNoSecurity = 2;
  ByteWriter area;
  area.u8(1)
      .u8(kOther)
      .u8(0)
      .u8(0)
      .u8(0)
      .u8(kSafe)
      .u8(kSafe)
      .u8(kSafe)
      .u8(kNoSecurity)
      .u32(0)
      .u8(0)
      .u8(0)
      .u8(0)
      .u8(0)
      .u8(0);
  table.add(3, kEnclosureHandle, area, {kManufacturer});
}

void addProcessor(StructureTable& table, unsigned cpus) {  // type 4, 7.5: one socket with all CPUs as cores
  constexpr std::uint8_t kCentral = 3, kOtherFamily = 1, kEnabledSocket = 0x41, kOtherUpgrade = 1;
  constexpr std::uint16_t k64Bit = 1 << 2, kMultiCore = 1 << 3, kUnknownHandle = 0xffff;
  ByteWriter area;
  area.u8(1)
      .u8(kCentral)
      .u8(kOtherFamily)
      .u8(2)
      .u64(0)
      .u8(0)
      .u8(0)
      .u16(0)
      .u16(2000)
      .u16(2000)
      .u8(kEnabledSocket)
      .u8(kOtherUpgrade);
  area.u16(kUnknownHandle).u16(kUnknownHandle).u16(kUnknownHandle).u8(0).u8(0).u8(0);
  std::uint64_t count = std::min(cpus, 255u);
  area.u8(count)
      .u8(count)
      .u8(count)
      .u16(k64Bit | (cpus > 1 ? kMultiCore : 0))
      .u16(kOtherFamily)
      .u16(cpus)
      .u16(cpus)
      .u16(cpus);
  table.add(4, kProcessorHandle, area, {"CPU 0", kManufacturer});
}

void addMemory(StructureTable& table, std::uint64_t bytes) {  // types 16, 17, 19: 7.17, 7.18, 7.20
  constexpr std::uint8_t kOtherLocation = 1, kSystemMemory = 3, kMultiBitEcc = 6, kDimm = 9, kRam = 7;
  constexpr std::uint16_t kUnknown = 0xffff, kOtherDetail = 2, kSizeElsewhere = 0x7fff;
  std::uint64_t mib = bytes / 1_MiB;
  ByteWriter array;
  array.u8(kOtherLocation)
      .u8(kSystemMemory)
      .u8(kMultiBitEcc)
      .u32(bytes / 1_KiB);  // GuestMemory ends at 1 TiB: no extended fields
  array.u16(kNoHandle).u16(1).u64(0);
  table.add(16, kMemoryArrayHandle, array);
  ByteWriter device;
  device.u16(kMemoryArrayHandle)
      .u16(kNoHandle)
      .u16(kUnknown)
      .u16(kUnknown)
      .u16(mib < kSizeElsewhere ? mib : kSizeElsewhere);
  device.u8(kDimm).u8(0).u8(1).u8(0).u8(kRam).u16(kOtherDetail).u16(0).u8(2).u8(0).u8(0).u8(0).u8(0);
  device.u32(mib < kSizeElsewhere ? 0 : mib).u16(0).u16(0).u16(0).u16(0);
  table.add(17, kMemoryDeviceHandle, device, {"DIMM 0", kManufacturer});
  auto addMapped = [&](std::uint16_t handle, std::uint64_t start, std::uint64_t end) {
    ByteWriter mapped;
    mapped.u32(start / 1_KiB).u32(end / 1_KiB - 1).u16(kMemoryArrayHandle).u8(1).u64(0).u64(0);
    table.add(19, handle, mapped);
  };
  std::uint64_t low = std::min(bytes, GuestMemory::kHoleStart);
  addMapped(kMappedHandle, 0, low);
  if (bytes > low) addMapped(kMappedHandle + 1, GuestMemory::kHoleEnd, GuestMemory::kHoleEnd + bytes - low);
}

std::vector<std::uint8_t> buildEntryPoint(std::uint64_t table, std::size_t length) {  // 5.2.2
  constexpr std::size_t kBytes = 24, kChecksumOffset = 5;
  ByteWriter out;
  out.text("_SM3_", 5).u8(0).u8(kBytes).u8(3).u8(0).u8(0).u8(1).u8(0).u32(length).u64(table);
  out.patch(kChecksumOffset, checksumOf(out.view()), 1);
  return out.take();
}
}  // namespace

std::array<std::uint8_t, 16> machineUuid(std::string_view machineName) {
  std::uint64_t high = 0x6c6f646765206d61, low = 0x6368696e65206e6d;  // "lodge machine nm": nothing but different seeds
  for (char c : machineName) {
    high = mix(high ^ static_cast<unsigned char>(c));
    low = mix(low + static_cast<unsigned char>(c) + 0x9e3779b97f4a7c15);
  }
  high = mix(high + machineName.size());
  low = mix(low ^ high);
  std::array<std::uint8_t, 16> uuid{};
  for (unsigned i = 0; i < 8; ++i) {
    uuid[i] = static_cast<std::uint8_t>(high >> (8 * i));
    uuid[i + 8] = static_cast<std::uint8_t>(low >> (8 * i));
  }
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x80);
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

std::vector<std::uint8_t> buildSmbios(const PlatformDescription& platform, std::uint64_t memoryBytes,
                                      std::uint64_t base) {
  constexpr std::size_t kTableOffset = 32;
  StructureTable structures;
  addFirmware(structures);
  addSystem(structures, platform);
  addEnclosure(structures);
  addProcessor(structures, platform.cpus);
  addMemory(structures, memoryBytes);
  structures.add(32, kBootHandle, ByteWriter().zeros(7));  // 7.33: no errors detected
  structures.add(127, kEndHandle, ByteWriter());
  std::vector<std::uint8_t> table = structures.take();
  ByteWriter out;
  out.bytes(buildEntryPoint(base + kTableOffset, table.size())).align(kTableOffset).bytes(table);
  return out.take();
}

}  // namespace lodge::firmware
