// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>

#include "base/text.h"
#include "image/utf16.h"
#include "image/vhdx_image.h"

namespace lodge::image::vhdx {

namespace {

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, what);
}

Error readError(int error, const std::string& what) {
  return Error::fromErrno(error, "read " + what);
}

struct Area {
  std::uint64_t offset = 0, bytes = 0;
};

bool inFile(const Area& area, BlockFile& file) {
  return area.offset >= 1_MiB && area.offset % 1_MiB == 0 && area.bytes % 1_MiB == 0 && area.bytes != 0 &&
         area.offset <= file.size() && area.bytes <= file.size() - area.offset;
}

Result<bool> readRegions(BlockFile& file, std::uint64_t at, std::map<Uuid, Area>& regions) {
  std::vector<std::byte> bytes(kRegionTableBytes);
  if (int error = file.read(at, bytes.data(), bytes.size()); error != 0) return readError(error, "a region table");
  RegionTable table{};
  std::memcpy(&table, bytes.data(), sizeof table);
  if (!hasSignature(table, "regi") || table.checksum != checksumOf(bytes)) return false;
  if (table.entries > kMostEntries) return bad(fmt::format("{} regions", std::uint32_t{table.entries}));
  for (std::uint32_t i = 0; i < table.entries; ++i) {
    Region region{};
    std::memcpy(&region, bytes.data() + sizeof table + i * sizeof region, sizeof region);
    bool known = region.kind == kBatRegion || region.kind == kMetadataRegion;
    if (!known && (region.required & 1) != 0) {
      return Error(ErrorKind::unsupported, "a required region of kind " + formatUuid(region.kind, true));
    }
    Area area{region.offset, region.bytes};
    if (!known) continue;
    if (!inFile(area, file)) return bad(fmt::format("a region at {:#x} is outside the file", area.offset));
    if (!regions.emplace(region.kind, area).second) return bad("a region that is there twice");
  }
  return true;
}

class Metadata {
 public:
  Metadata(BlockFile& file, Contents& contents) : file_(file), contents_(contents) {}

  Status read() {
    std::vector<std::byte> bytes(kMetadataTableBytes);
    if (contents_.metadataBytes < bytes.size()) return bad("a metadata region that is too short");
    if (int error = file_.read(contents_.metadataOffset, bytes.data(), bytes.size()); error != 0) {
      return readError(error, "the metadata table");
    }
    MetadataTable table{};
    std::memcpy(&table, bytes.data(), sizeof table);
    if (!hasSignature(table, "metadata") || table.entries > kMostEntries) return bad("no metadata table");
    for (std::uint32_t i = 0; i < table.entries; ++i) {
      MetadataEntry entry{};
      std::uint64_t at = sizeof table + i * sizeof entry;
      std::memcpy(&entry, bytes.data() + at, sizeof entry);
      if (Status added = add(entry, contents_.metadataOffset + at); !added) return added;
    }
    return interpret();
  }

 private:
  struct Item {
    std::uint64_t offset;
    std::vector<std::byte> bytes;
  };

  Status add(const MetadataEntry& entry, std::uint64_t at) {
    bool known = entry.item == kFileParametersItem || entry.item == kDiskSizeItem || entry.item == kDiskIdItem ||
                 entry.item == kLogicalSectorItem || entry.item == kPhysicalSectorItem ||
                 entry.item == kParentLocatorItem;
    if (!known || (entry.flags & kIsUser) != 0) {
      if ((entry.flags & kIsRequired) == 0) return {};
      return Error(ErrorKind::unsupported, "a required metadata item " + formatUuid(entry.item, true));
    }
    std::uint64_t offset = entry.offset, bytes = entry.bytes;
    if (offset < kMetadataTableBytes || bytes > 1_MiB || offset + bytes > contents_.metadataBytes) {
      return bad("a metadata item lies outside its region");
    }
    if (entry.item == kParentLocatorItem) contents_.locatorEntry = at;
    Item item{contents_.metadataOffset + offset, std::vector<std::byte>(bytes)};
    if (int error = file_.read(item.offset, item.bytes.data(), item.bytes.size()); error != 0) {
      return readError(error, "a metadata item");
    }
    if (!items_.emplace(entry.item, std::move(item)).second) return bad("a metadata item that is there twice");
    return {};
  }

  template <class T>
  std::optional<T> get(const Uuid& id) {
    auto found = items_.find(id);
    if (found == items_.end() || found->second.bytes.size() < sizeof(T)) return std::nullopt;
    T value{};
    std::memcpy(&value, found->second.bytes.data(), sizeof value);
    return value;
  }

  Status interpret() {
    auto parameters = get<FileParameters>(kFileParametersItem);
    auto bytes = get<Le64>(kDiskSizeItem);
    auto sector = get<Le32>(kLogicalSectorItem), physical = get<Le32>(kPhysicalSectorItem);
    if (!parameters || !bytes || !sector) return bad("its metadata lack the block, sector or disk size");
    contents_.blockBytes = parameters->blockBytes;
    contents_.flags = parameters->flags;
    contents_.diskBytes = *bytes;
    contents_.sectorBytes = *sector;
    contents_.physicalSectorBytes = std::uint32_t{physical ? *physical : *sector};
    contents_.sizeItem = items_.at(kDiskSizeItem).offset;
    if (auto id = get<Uuid>(kDiskIdItem)) contents_.diskId = *id;
    std::uint64_t block = contents_.blockBytes;
    if (block < 1_MiB || block > 256_MiB || (block & (block - 1)) != 0) {
      return bad(fmt::format("a block size of {} bytes", block));
    }
    if (contents_.sectorBytes != 512 && contents_.sectorBytes != 4096) {
      return bad(fmt::format("sectors of {} bytes", contents_.sectorBytes));
    }
    if (contents_.diskBytes == 0 || contents_.diskBytes > kMaxDiskBytes ||
        contents_.diskBytes % contents_.sectorBytes != 0) {
      return bad(fmt::format("a disk of {} bytes", contents_.diskBytes));
    }
    if (!contents_.hasParent()) return {};
    auto locator = items_.find(kParentLocatorItem);
    if (locator == items_.end()) return bad("a differencing image without a parent locator");
    contents_.locator = locator->second.bytes;
    return {};
  }

  BlockFile& file_;
  Contents& contents_;
  std::map<Uuid, Item> items_;
};

}  // namespace

std::uint64_t Contents::entries(std::uint64_t ofBlocks) const {
  std::uint64_t ratio = chunkRatio();
  if (hasParent()) return (ofBlocks + ratio - 1) / ratio * (ratio + 1);
  return ofBlocks == 0 ? 0 : ofBlocks + (ofBlocks - 1) / ratio;
}

Result<Header> readHeader(BlockFile& file, unsigned& current) {
  std::optional<Header> best;
  for (unsigned i = 0; i < 2; ++i) {
    Header header{};
    if (int error = file.read(kHeaderOffsets[i], &header, sizeof header); error != 0) {
      return readError(error, "a header");
    }
    if (!hasSignature(header, "head") || header.checksum != checksumOf(bytesOf(header))) continue;
    if (best && header.sequence <= best->sequence) continue;
    best = header;
    current = i;
  }
  if (!best) return bad("neither of its two headers is whole");
  if (best->version != 1) {
    return Error(ErrorKind::unsupported, fmt::format("version {}", std::uint16_t{best->version}));
  }
  return *best;
}

int writeHeader(BlockFile& file, Header& header, unsigned& current) {
  for (int copies = 0; copies < 2; ++copies) {
    current = 1 - current;
    header.sequence = header.sequence + 1;
    header.checksum = checksumOf(bytesOf(header));
    if (int error = file.write(kHeaderOffsets[current], &header, sizeof header); error != 0) return error;
    if (int error = file.flush(); error != 0) return error;
  }
  return 0;
}

Status readContents(BlockFile& file, Contents& contents) {
  std::map<Uuid, Area> regions;
  bool found = false;
  for (std::uint64_t at : kRegionTableOffsets) {
    regions.clear();
    auto read = readRegions(file, at, regions);
    if (!read) return std::move(read).error();
    found = *read;
    if (found) break;
  }
  if (!found) return bad("neither of its two region tables is whole");
  if (regions.count(kBatRegion) == 0 || regions.count(kMetadataRegion) == 0) {
    return bad("it lacks the block table or the metadata");
  }
  contents.batOffset = regions[kBatRegion].offset;
  contents.batBytes = regions[kBatRegion].bytes;
  contents.metadataOffset = regions[kMetadataRegion].offset;
  contents.metadataBytes = regions[kMetadataRegion].bytes;
  if (Status read = Metadata(file, contents).read(); !read) return read;
  if (contents.entries(contents.blocks()) > contents.batBytes / 8) return bad("its block table is too short");
  return {};
}

Result<Parent> readLocator(std::span<const std::byte> bytes) {
  ParentLocator locator{};
  if (bytes.size() < sizeof locator) return bad("the parent locator is too short");
  std::memcpy(&locator, bytes.data(), sizeof locator);
  if (locator.type != kVhdxParent) {
    return Error(ErrorKind::unsupported, "a parent locator of type " + formatUuid(locator.type, true));
  }
  std::map<std::string, std::string> values;
  for (std::size_t i = 0; i < locator.entries; ++i) {
    ParentEntry entry{};
    std::size_t at = sizeof locator + i * sizeof entry;
    if (at + sizeof entry > bytes.size()) return bad("the parent locator is cut off");
    std::memcpy(&entry, bytes.data() + at, sizeof entry);
    auto text = [&](std::uint64_t offset, std::uint64_t length) -> std::optional<std::string> {
      if (offset > bytes.size() || length > bytes.size() - offset) return std::nullopt;
      std::u16string wide;
      for (std::uint64_t b = 0; b + 1 < length; b += 2) {
        wide += static_cast<char16_t>(loadLe<std::uint16_t>(bytes.data() + offset + b));
      }
      return fromUtf16(wide);
    };
    auto key = text(entry.keyOffset, entry.keyBytes), value = text(entry.valueOffset, entry.valueBytes);
    if (!key || !value) return bad("the parent locator has a text that is none");
    values[*key] = *value;
  }
  Parent parent{values["parent_linkage"], {}};
  for (const char* key : {"relative_path", "volume_path", "absolute_win32_path"}) {
    std::string name = fromWindowsPath(values[key]);
    if (!name.empty() && std::count(parent.names.begin(), parent.names.end(), name) == 0) parent.names.push_back(name);
  }
  if (parent.names.empty()) return bad("a differencing image that names no parent");
  return parent;
}

Result<std::vector<std::byte>> makeLocator(const Uuid& parentDataWrite, const std::string& name) {
  auto wide = toUtf16(toWindowsPath(name));
  if (!wide || wide->size() > 4000) {
    return Error(ErrorKind::invalidArgument,
                 fmt::format("parent {}: its name is not UTF-8 or too long", inQuotes(name)));
  }
  const std::pair<std::u16string, std::u16string> texts[] = {
      {u"parent_linkage", *toUtf16("{" + formatUuid(parentDataWrite, true) + "}")},
      {name.starts_with("/") ? u"absolute_win32_path" : u"relative_path", *wide}};
  ParentLocator locator{};
  locator.type = kVhdxParent;
  locator.entries = static_cast<std::uint16_t>(std::size(texts));
  std::vector<std::byte> bytes(sizeof locator + std::size(texts) * sizeof(ParentEntry));
  std::memcpy(bytes.data(), &locator, sizeof locator);
  auto put = [&](const std::u16string& text) {
    for (char16_t c : text) {
      bytes.push_back(static_cast<std::byte>(c & 0xff));
      bytes.push_back(static_cast<std::byte>(c >> 8));
    }
    return static_cast<std::uint16_t>(text.size() * 2);
  };
  for (std::size_t i = 0; i < std::size(texts); ++i) {
    ParentEntry entry{};
    entry.keyOffset = static_cast<std::uint32_t>(bytes.size());
    entry.keyBytes = put(texts[i].first);
    entry.valueOffset = static_cast<std::uint32_t>(bytes.size());
    entry.valueBytes = put(texts[i].second);
    std::memcpy(bytes.data() + sizeof locator + i * sizeof entry, &entry, sizeof entry);
  }
  return bytes;
}

}  // namespace lodge::image::vhdx
