// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "image/drivers.h"
#include "image/vhdx_image.h"

namespace lodge::image {

namespace {

using namespace vhdx;

constexpr std::uint32_t kLogBytes = 1_MiB;
constexpr std::uint32_t kItemsOffset = kMetadataTableBytes;  ///< in the metadata region
constexpr std::uint32_t kLocatorOffset = kItemsOffset + 64_KiB;

int probeVhdx(const Probe& probe) {
  return probe.head.size() >= 8 && std::memcmp(probe.head.data(), "vhdxfile", 8) == 0 ? 100 : 0;
}

Result<std::unique_ptr<Image>> openParent(const OpenContext& context, const Contents& contents, std::string& name) {
  auto parent = readLocator(contents.locator);
  if (!parent) return std::move(parent).error();
  name = parent->names.front();
  std::optional<Error> first;
  for (const std::string& candidate : parent->names) {
    auto image = openBacking(context, candidate, "vhdx");
    if (!image) {
      bool missing = image.error().kind() == ErrorKind::notFound;
      if (!first) first = std::move(image).error();
      if (missing) continue;
      break;
    }
    auto* opened = dynamic_cast<VhdxImage*>(image->get());
    std::string linkage = opened ? "{" + formatUuid(opened->dataWriteId(), true) + "}" : "";
    std::string wanted = parent->linkage;
    for (char& c : wanted) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (linkage != wanted) {
      return Error(ErrorKind::corrupt, fmt::format("its parent {} was changed since (id {} for {})",
                                                   inQuotes(candidate), linkage, inQuotes(wanted)))
          .withHint("'lodge image rebase -u' accepts it as it is");
    }
    name = candidate;
    return image;
  }
  return std::move(*first);
}

Result<std::unique_ptr<Image>> openVhdx(const OpenContext& context) {
  Contents contents;
  std::byte magic[8] = {};
  if (int error = context.file->read(0, magic, sizeof magic); error != 0) {
    return Error::fromErrno(error, "read its identifier");
  }
  if (std::memcmp(magic, "vhdxfile", sizeof magic) != 0) {
    return Error(ErrorKind::corrupt, "it has no VHDX identifier");
  }
  auto header = readHeader(*context.file, contents.current);
  if (!header) return std::move(header).error();
  contents.header = *header;
  auto replay = readLog(*context.file, contents.header);
  if (!replay) return std::move(replay).error();
  std::shared_ptr<BlockFile> file = context.file;
  bool hadLog = !replay->changes.empty();
  if (hadLog && context.options.file.readOnly) {
    file = withReplay(file, std::move(*replay));
  } else if (hadLog) {
    if (int error = applyReplay(*file, *replay); error != 0) return Error::fromErrno(error, "replay its log");
  }
  if (Status read = readContents(*file, contents); !read) return std::move(read).error();
  std::unique_ptr<Image> parent;
  std::string parentName;
  if (contents.hasParent() && context.options.openBacking) {
    auto opened = openParent(context, contents, parentName);
    if (!opened) return std::move(opened).error();
    parent = std::move(*opened);
  } else if (contents.hasParent()) {
    auto names = readLocator(contents.locator);
    if (names) parentName = names->names.front();
  }
  return std::unique_ptr<Image>(std::make_unique<VhdxImage>(context, std::move(file), std::move(contents),
                                                            std::move(parent), std::move(parentName), hadLog));
}

std::uint64_t defaultBlock(std::uint64_t bytes) {
  return bytes > 32_TiB ? 64_MiB : bytes > 100_GiB ? 32_MiB : bytes > 1_GiB ? 16_MiB : 8_MiB;
}

Status plan(const CreateRequest& request, Contents& c, bool& fixed) {
  std::string kind = request.option("subformat", request.backingName.empty() ? "dynamic" : "differencing");
  if (kind != "dynamic" && kind != "fixed" && kind != "differencing") {
    return Error(ErrorKind::invalidArgument, "option subformat: " + inQuotes(kind))
        .withHint("use dynamic, fixed or differencing");
  }
  fixed = kind == "fixed";
  if ((kind == "differencing") == request.backingName.empty()) {
    return Error(ErrorKind::invalidArgument, "a differencing image, and no other, has a parent")
        .withHint("use -b FILE");
  }
  auto block = sizeOption(request, "block_size", 0);
  if (!block) return std::move(block).error();
  auto sector = sizeOption(request, "logical_sector_size", 512);
  if (!sector) return std::move(sector).error();
  auto physical = sizeOption(request, "physical_sector_size", 4096);
  if (!physical) return std::move(physical).error();
  c.blockBytes = *block == 0 ? defaultBlock(request.bytes) : *block;
  if (c.blockBytes < 1_MiB || c.blockBytes > 256_MiB || (c.blockBytes & (c.blockBytes - 1)) != 0) {
    return Error(ErrorKind::invalidArgument, "option block_size: a power of two from 1M to 256M is due");
  }
  if ((*sector != 512 && *sector != 4096) || (*physical != 512 && *physical != 4096)) {
    return Error(ErrorKind::invalidArgument, "sectors of 512 or 4096 bytes are due");
  }
  c.sectorBytes = static_cast<std::uint32_t>(*sector);
  c.physicalSectorBytes = static_cast<std::uint32_t>(*physical);
  c.diskBytes = alignUp(request.bytes, c.sectorBytes);
  c.flags = (fixed ? kLeaveBlocksAllocated : 0U) | (request.backingName.empty() ? 0U : kHasParent);
  if (c.diskBytes == 0 || c.diskBytes > kMaxDiskBytes) {
    return Error(ErrorKind::invalidArgument, fmt::format("a VHDX of {} bytes: 64 TiB are the most", request.bytes));
  }
  return {};
}

Status planParent(const CreateRequest& request, Contents& c) {
  if (request.backingName.empty()) return {};
  auto parent = openNewParent(request);
  if (!parent) return std::move(parent).error();
  auto* image = dynamic_cast<VhdxImage*>(parent->get());
  if (!image) return wrongParent(request, "VHDX");
  c.sectorBytes = image->sectorBytes();
  c.diskBytes = alignUp(c.diskBytes, c.sectorBytes);
  auto locator = makeLocator(image->dataWriteId(), request.backingName);
  if (!locator) return std::move(locator).error();
  c.locator = std::move(*locator);
  return {};
}

std::vector<std::byte> makeMetadata(const Contents& c) {
  std::vector<std::byte> bytes(1_MiB);
  MetadataTable table{};
  std::memcpy(table.signature.data(), "metadata", 8);
  std::uint32_t count = 0, offset = kItemsOffset;
  auto add = [&](const Uuid& id, std::span<const std::byte> item, std::uint32_t flags, std::uint32_t at) {
    MetadataEntry entry{id, at, static_cast<std::uint32_t>(item.size()), flags, 0};
    std::memcpy(bytes.data() + sizeof table + count++ * sizeof entry, &entry, sizeof entry);
    std::memcpy(bytes.data() + at, item.data(), item.size());
    offset = std::max<std::uint32_t>(offset, at + static_cast<std::uint32_t>(item.size()));
  };
  FileParameters parameters{static_cast<std::uint32_t>(c.blockBytes), c.flags};
  Le64 size = c.diskBytes;
  Le32 sector = c.sectorBytes, physical = c.physicalSectorBytes;
  Uuid id = randomUuid(true);
  add(kFileParametersItem, bytesOf(parameters), kIsRequired, offset);
  add(kDiskSizeItem, bytesOf(size), kIsVirtualDisk | kIsRequired, offset);
  add(kDiskIdItem, bytesOf(id), kIsVirtualDisk | kIsRequired, offset);
  add(kLogicalSectorItem, bytesOf(sector), kIsVirtualDisk | kIsRequired, offset);
  add(kPhysicalSectorItem, bytesOf(physical), kIsVirtualDisk | kIsRequired, offset);
  if (c.hasParent()) add(kParentLocatorItem, c.locator, kIsRequired, kLocatorOffset);
  table.entries = static_cast<std::uint16_t>(count);
  std::memcpy(bytes.data(), &table, sizeof table);
  return bytes;
}

std::vector<std::byte> makeIdentifier() {
  std::vector<std::byte> bytes(64_KiB);
  std::memcpy(bytes.data(), "vhdxfile", 8);
  constexpr std::u16string_view kCreator = u"Lodge";
  std::memcpy(bytes.data() + 8, kCreator.data(), kCreator.size() * 2);
  return bytes;
}

int writeTable(BlockFile& file, const Contents& c, std::uint64_t firstBlock) {
  std::vector<std::byte> part;
  std::uint64_t entries = c.entries(c.blocks()), block = 0, ratio = c.chunkRatio();
  for (std::uint64_t index = 0; index < entries;) {
    std::uint64_t n = std::min<std::uint64_t>(entries - index, 65536);
    part.assign(n * 8, std::byte{0});
    for (std::uint64_t i = 0; i < n; ++i) {
      if ((index + i) % (ratio + 1) == ratio) continue;
      storeLe(part.data() + i * 8, makeEntry(kFullyPresent, firstBlock + block++ * c.blockBytes));
    }
    if (int error = file.write(c.batOffset + index * 8, part.data(), part.size()); error != 0) return error;
    index += n;
  }
  return 0;
}

int writeImage(BlockFile& file, Contents& c, bool fixed, const CreateRequest& request) {
  Preallocation preallocation = request.preallocation;
  Header& header = c.header;
  std::memcpy(header.signature.data(), "head", 4);
  header.fileWrite = randomUuid(true);
  header.dataWrite = randomUuid(true);
  header.version = 1;
  header.logBytes = kLogBytes;
  header.logOffset = 1_MiB;
  c.metadataOffset = 1_MiB + kLogBytes;
  c.metadataBytes = 1_MiB;
  c.batOffset = c.metadataOffset + c.metadataBytes;
  c.batBytes = alignUp(c.entries(c.blocks()) * 8, 1_MiB);
  std::uint64_t firstBlock = c.batOffset + c.batBytes;
  std::vector<std::byte> identifier = makeIdentifier(), metadata = makeMetadata(c), regions = makeRegions(c);
  bool mapped = fixed || preallocation != Preallocation::off;
  bool room = preallocation == Preallocation::falloc || preallocation == Preallocation::full;
  std::uint64_t end = firstBlock + (mapped ? c.blocks() * c.blockBytes : 0);
  int error = file.write(0, identifier.data(), identifier.size());
  if (error == 0) error = file.write(c.metadataOffset, metadata.data(), metadata.size());
  for (std::uint64_t at : kRegionTableOffsets) {
    if (error == 0) error = file.write(at, regions.data(), regions.size());
  }
  if (error == 0) error = file.truncate(end);
  if (error == 0 && mapped) error = writeTable(file, c, firstBlock);
  if (error == 0 && room) error = reserveRoom(file, firstBlock, end - firstBlock, request.progress);
  return error == 0 ? writeHeader(file, header, c.current) : error;
}

Status createVhdx(const CreateRequest& request) {
  Contents c;
  bool fixed = false;
  if (Status good = plan(request, c, fixed); !good) return good;
  if (Status good = planParent(request, c); !good) return good;
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  if (int error = writeImage(**file, c, fixed, request); error != 0) {
    return Error::fromErrno(error, "write it");
  }
  return {};
}

}  // namespace

const FormatDriver& vhdxDriver() {
  static const FormatDriver driver = {
      .name = "vhdx",
      .summary = "Hyper-V: dynamic, fixed, differencing",
      .suffixes = {"vhdx", "avhdx"},
      .probe = probeVhdx,
      .open = openVhdx,
      .create = createVhdx,
      .options = {{"subformat", "dynamic|fixed|differencing", "dynamic", "differencing is what -b makes"},
                  {"block_size", "SIZE", "8M to 64M by the disk's size", "unit of allocation"},
                  {"logical_sector_size", "512|4096", "512", "what the guest sees"},
                  {"physical_sector_size", "512|4096", "4096", "what the guest is told to align to"},
                  {"preallocation", "off|metadata|falloc|full", "off", "what takes room from the start"}},
      .backing = true,
  };
  return driver;
}

}  // namespace lodge::image
