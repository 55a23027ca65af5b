// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace lodge::image::vmdk {

enum class Access : std::uint8_t { readWrite, readOnly, none };

struct ExtentLine {
  Access access = Access::readWrite;
  std::uint64_t sectors = 0;
  std::string type;  ///< "SPARSE", "FLAT", "ZERO", "VMFS", "VMFSSPARSE", "SESPARSE", ...
  std::string file;
  std::uint64_t offset = 0;  ///< sectors into the file, of flat ones
};

/// The text that says what a VMDK is made of.
struct Descriptor {
  std::uint32_t cid = 0xffffffff, parentCid = 0xffffffff;
  std::string createType;
  std::string parentName;  ///< parentFileNameHint
  std::vector<ExtentLine> extents;
  std::map<std::string, std::string> values;  ///< all else: "ddb.adapterType", "version", ...

  std::uint64_t sectors() const;
  bool hasParent() const { return parentCid != 0xffffffff; }
};

constexpr std::size_t kMaxDescriptor = 1 << 20;
constexpr std::size_t kMaxExtents = 4096;

/// Whether `head` begins like a descriptor file.
bool looksLikeDescriptor(std::string_view head);
/// `text` up to its first NUL. Errors: corrupt (naming the line), unsupported.
Result<Descriptor> parseDescriptor(std::string_view text);
/// The text with other values for CID, parentCID and parentFileNameHint (where `text` has them), all else as it is.
std::string withIds(std::string_view text, std::uint32_t cid, std::uint32_t parentCid, const std::string& parentName);
/// The text with another size for the extent line of that number.
std::string withExtentSize(std::string_view text, std::size_t extent, std::uint64_t sectors);

/// The geometry that VMware gives a disk on such an adapter ("ide", "lsilogic", "buslogic", "legacyESX").
struct DiskGeometry {
  std::uint64_t cylinders, heads, sectors;
};
DiskGeometry geometryFor(std::string_view adapter, std::uint64_t diskSectors);

struct DescriptorRequest {
  std::string createType;
  std::vector<ExtentLine> extents;
  std::uint32_t cid = 0xfffffffe, parentCid = 0xffffffff;
  std::string parentName{};
  std::string adapter = "ide", hardwareVersion = "4";
};
std::string makeDescriptor(const DescriptorRequest& request);

}  // namespace lodge::image::vmdk
