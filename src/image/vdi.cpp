// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/drivers.h"
#include "image/vdi_image.h"

namespace lodge::image {

namespace {

using vdi::Header;

constexpr std::uint64_t kDefaultBlock = 1_MiB;

int probeVdi(const Probe& probe) {
  if (probe.head.size() < sizeof(Header)) return 0;
  return loadLe<std::uint32_t>(probe.head.data() + offsetof(Header, signature)) == vdi::kSignature ? 100 : 0;
}

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, what);
}

Result<Header> readHeader(const OpenContext& context) {
  Header header{};
  if (int error = context.file->read(0, &header, sizeof header); error != 0) {
    return Error::fromErrno(error, "read its header");
  }
  if (header.signature != vdi::kSignature) return bad("it has no VDI signature");
  if (header.version >> 16 != vdi::kVersion >> 16) {
    return Error(ErrorKind::unsupported, fmt::format("version {}.{}", header.version >> 16, header.version & 0xffff))
        .withHint("Lodge reads version 1.1");
  }
  std::uint64_t block = header.blockBytes, blocks = header.blocks, disk = header.diskBytes;
  if (header.headerBytes < vdi::kLeastHeaderBytes) return bad("its header is too short");
  if (block < 64_KiB || block > 256_MiB || (block & (block - 1)) != 0) {
    return bad(fmt::format("a block size of {} bytes", block));
  }
  if (header.blockExtraBytes != 0) {
    return Error(ErrorKind::unsupported, "extra data before blocks");
  }
  if (disk == 0 || disk > blocks * block) {
    return bad(fmt::format("a disk of {} bytes in {} blocks of {}", disk, blocks, block));
  }
  if (header.tableOffset < sizeof(Header) || header.dataOffset < header.tableOffset + blocks * 4) {
    return bad("its table of blocks overlaps with the header or with the blocks");
  }
  if (header.tableOffset + blocks * 4 > context.file->size()) return bad("its table of blocks is cut off");
  if (header.type < vdi::kDynamic || header.type > vdi::kDifferencing) {
    return bad(fmt::format("image type {}", std::uint32_t{header.type}));
  }
  return header;
}

Result<std::unique_ptr<Image>> openVdi(const OpenContext& context) {
  auto header = readHeader(context);
  if (!header) return std::move(header).error();
  bool child = header->type == vdi::kUndo || header->type == vdi::kDifferencing;
  if (child && !context.options.file.readOnly) {
    return Error(ErrorKind::unsupported, "differencing VDI images are not written")
        .withHint("open it read-only, or convert it");
  }
  std::unique_ptr<Image> parent;
  std::string parentName;
  if (child && context.options.openBacking) {
    auto name = vdi::findParent(context, header->parent);
    if (!name) return std::move(name).error();
    parentName = *name;
    auto opened = openBacking(context, parentName, "vdi");
    if (!opened) return std::move(opened).error();
    parent = std::move(*opened);
  }
  return std::unique_ptr<Image>(
      std::make_unique<vdi::VdiImage>(context, *header, std::move(parent), std::move(parentName)));
}

Header makeHeader(std::uint64_t bytes, std::uint64_t block, bool fixed) {
  Header header{};
  constexpr std::string_view kText = "<<< Oracle VM VirtualBox Disk Image >>>\n";
  std::memcpy(header.text.data(), kText.data(), kText.size());
  header.signature = vdi::kSignature;
  header.version = vdi::kVersion;
  header.headerBytes = vdi::kHeaderBytes;
  header.type = fixed ? vdi::kFixed : vdi::kDynamic;
  std::uint64_t blocks = (bytes + block - 1) / block;
  header.tableOffset = sizeof(Header);
  header.dataOffset = static_cast<std::uint32_t>(alignUp(sizeof(Header) + blocks * 4, 1_MiB));
  header.geometry.sectorBytes = 512;
  header.diskBytes = bytes;
  header.blockBytes = static_cast<std::uint32_t>(block);
  header.blocks = static_cast<std::uint32_t>(blocks);
  header.allocatedBlocks = fixed ? static_cast<std::uint32_t>(blocks) : 0;
  header.created = randomUuid(true);
  header.modified = randomUuid(true);
  header.logicalGeometry.sectorBytes = 512;
  return header;
}

int writeTable(BlockFile& file, const Header& header, bool fixed) {
  std::vector<std::byte> part;
  std::uint64_t blocks = header.blocks;
  for (std::uint64_t block = 0; block < blocks;) {
    std::uint64_t n = std::min<std::uint64_t>(blocks - block, 65536);
    part.resize(n * 4);
    for (std::uint64_t i = 0; i < n; ++i) {
      storeLe<std::uint32_t>(part.data() + i * 4, fixed ? static_cast<std::uint32_t>(block + i) : vdi::kFree);
    }
    if (int error = file.write(header.tableOffset + block * 4, part.data(), part.size()); error != 0) return error;
    block += n;
  }
  return 0;
}

Status createVdi(const CreateRequest& request) {
  auto block = sizeOption(request, "block_size", kDefaultBlock);
  if (!block) return std::move(block).error();
  auto isStatic = switchOption(request, "static", false);
  if (!isStatic) return std::move(isStatic).error();
  if (*block < 1_MiB || *block > 256_MiB || (*block & (*block - 1)) != 0) {
    return Error(ErrorKind::invalidArgument, "option block_size: a power of two from 1M to 256M is due");
  }
  bool fixed = *isStatic || request.option("subformat", "dynamic") == "fixed";
  bool whole = request.preallocation == Preallocation::full || request.preallocation == Preallocation::falloc;
  std::uint64_t blocks = (request.bytes + *block - 1) / *block;
  if (request.bytes == 0 || blocks > 0x3ff00000) {
    return Error(ErrorKind::invalidArgument, fmt::format("a VDI image of {} bytes", request.bytes))
        .withHint("larger blocks (-o block_size=256M) allow larger disks");
  }
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  Header header = makeHeader(request.bytes, *block, fixed || whole || request.preallocation == Preallocation::metadata);
  bool mapped = header.allocatedBlocks != 0;
  int error = (*file)->write(0, &header, sizeof header);
  if (error == 0) error = writeTable(**file, header, mapped);
  if (error == 0) error = (*file)->truncate(header.dataOffset + (mapped ? blocks * *block : 0));
  if (error == 0 && (whole || (fixed && request.preallocation == Preallocation::full))) {
    error = reserveRoom(**file, header.dataOffset, blocks * *block, request.progress);
  }
  if (error != 0) return Error::fromErrno(error, "write it");
  return {};
}

}  // namespace

const FormatDriver& vdiDriver() {
  static const FormatDriver driver = {
      .name = "vdi",
      .summary = "VirtualBox disk image: dynamic, fixed; differencing ones are read",
      .suffixes = {"vdi"},
      .probe = probeVdi,
      .open = openVdi,
      .create = createVdi,
      .options = {{"subformat", "dynamic|fixed", "dynamic", "whether blocks take room before they are written"},
                  {"static", "on|off", "off", "as subformat=fixed"},
                  {"block_size", "SIZE", "1M", "unit of allocation"},
                  {"preallocation", "off|metadata|falloc|full", "off", "what takes room from the start"}},
  };
  return driver;
}

}  // namespace lodge::image
