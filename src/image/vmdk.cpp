// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/drivers.h"
#include "image/utf16.h"
#include "image/vmdk_create.h"
#include "image/vmdk_image.h"

namespace lodge::image {

namespace {

using namespace vmdk;

int probeVmdk(const Probe& probe) {
  if (probe.head.size() < 8) return 0;
  auto magic = loadLe<std::uint32_t>(probe.head.data());
  if (magic == kMagic || magic == kCowdMagic) return 100;
  if (loadLe<std::uint64_t>(probe.head.data()) == kSeSparseMagic) return 100;
  std::string_view text(reinterpret_cast<const char*>(probe.head.data()), probe.head.size());
  return looksLikeDescriptor(text) ? 100 : 0;
}

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, what);
}

Result<std::string> readText(BlockFile& file, std::uint64_t offset, std::uint64_t bytes) {
  if (bytes > kMaxDescriptor) return bad("a descriptor of more than 1 MiB");
  std::string text(bytes, '\0');
  if (int error = file.read(offset, text.data(), text.size()); error != 0) {
    return Error::fromErrno(error, "read its descriptor");
  }
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

/// One extent of a descriptor that stands alone.
Result<VmdkImage::Part> openPart(const OpenContext& context, const ExtentLine& line) {
  VmdkImage::Part part;
  part.bytes = line.sectors * kSector;
  part.name = line.file;
  part.access = line.access;
  bool readOnly = context.options.file.readOnly || line.access != Access::readWrite;
  if (line.access == Access::none) return Error(ErrorKind::unsupported, "an extent that must not be accessed");
  if (line.type == "ZERO") {
    part.image = makeZeroExtent(part.bytes);
    return part;
  }
  bool flat = line.type == "FLAT" || line.type == "VMFS";
  if (!flat && line.type != "SPARSE" && line.type != "VMFSSPARSE" && line.type != "SESPARSE") {
    return Error(ErrorKind::unsupported, "an extent of type " + inQuotes(line.type));
  }
  auto file = openCompanion(context, line.file);
  if (!file) return std::move(file).error().context("extent");
  part.file = std::move(*file);
  if (flat) {
    std::uint64_t offset = line.offset * kSector;
    if (offset > part.file->size() || part.bytes > part.file->size() - offset) {
      return bad(fmt::format("extent {} is shorter than the descriptor says", inQuotes(line.file)));
    }
    part.image = makeFlatExtent(part.file, offset, part.bytes, readOnly);
    return part;
  }
  auto sparse = SparseExtent::open(part.file, readOnly);
  if (!sparse) return std::move(sparse).error().context("extent " + inQuotes(line.file));
  if ((*sparse)->size() < part.bytes) {
    return bad(fmt::format("extent {} is smaller than the descriptor says", inQuotes(line.file)));
  }
  part.sparse = sparse->get();
  part.image = std::move(*sparse);
  return part;
}

struct Opened {
  Descriptor descriptor;
  VmdkImage::Place place;
  std::vector<VmdkImage::Part> parts;
};

Status openDescriptor(const OpenContext& context, Opened& opened) {
  auto text = readText(*context.file, 0, std::min<std::uint64_t>(context.file->size(), kMaxDescriptor + 1));
  if (!text) return std::move(text).error();
  auto descriptor = parseDescriptor(*text);
  if (!descriptor) return std::move(descriptor).error();
  opened.descriptor = std::move(*descriptor);
  opened.place = {context.file, 0, 0, std::move(*text), false};
  if (opened.descriptor.extents.empty()) return bad("a descriptor without extents");
  for (const ExtentLine& line : opened.descriptor.extents) {
    auto part = openPart(context, line);
    if (!part) return std::move(part).error();
    opened.parts.push_back(std::move(*part));
  }
  return {};
}

Status openSparse(const OpenContext& context, Opened& opened) {
  bool readOnly = context.options.file.readOnly;
  auto sparse = SparseExtent::open(context.file, readOnly);
  if (!sparse) return std::move(sparse).error();
  SparseHeader front{};
  if (int error = context.file->read(0, &front, sizeof front); error != 0) {
    return Error::fromErrno(error, "read its header");
  }
  bool described = front.magic == kMagic && front.descriptorOffset != 0 && front.descriptorSize != 0;
  if (described) {
    std::uint64_t offset = front.descriptorOffset, sectors = front.descriptorSize;
    if (sectors > kMaxDescriptor / kSector || offset > context.file->size() / kSector) {
      return bad("its descriptor lies outside the file");
    }
    auto text = readText(*context.file, offset * kSector, sectors * kSector);
    if (!text) return std::move(text).error();
    auto descriptor = parseDescriptor(*text);
    if (!descriptor) return std::move(descriptor).error();
    opened.descriptor = std::move(*descriptor);
    opened.place = {context.file, offset * kSector, sectors * kSector, std::move(*text), true};
  } else {
    opened.descriptor.createType =
        (*sparse)->shape().kind == SparseShape::Kind::hosted ? "extent of a split image" : "extent of an ESX image";
  }
  VmdkImage::Part part;
  part.bytes = (*sparse)->size();
  part.sparse = sparse->get();
  part.image = std::move(*sparse);
  part.file = context.file;
  part.name = fileNameOf(context.path);
  opened.parts.push_back(std::move(part));
  return {};
}

Status checkWritable(const Opened& opened) {
  for (const VmdkImage::Part& part : opened.parts) {
    if (!part.sparse) continue;
    if (part.sparse->shape().kind != SparseShape::Kind::hosted) {
      return Error(ErrorKind::unsupported, "ESX sparse extents are not written").withHint("convert it");
    }
    if (part.sparse->shape().header.version == 3 && !part.sparse->compressed()) {
      return Error(ErrorKind::unsupported, "version 3 extents (with change tracking) are not written")
          .withHint("convert it");
    }
    if (part.sparse->compressed() && !part.sparse->empty()) {
      return Error(ErrorKind::unsupported, "a streamOptimized VMDK is written once, and not changed")
          .withHint("convert it to another kind");
    }
  }
  return {};
}

Result<std::unique_ptr<Image>> openParent(const OpenContext& context, const Descriptor& descriptor, std::string& name) {
  if (descriptor.parentName.empty()) return bad("it has a parent but does not name it");
  name = fromWindowsPath(descriptor.parentName);
  auto parent = openBacking(context, name, "vmdk");
  if (!parent && name.starts_with("/") && parent.error().kind() == ErrorKind::notFound) {
    parent = openBacking(context, fileNameOf(name), "vmdk");
  }
  if (!parent) return parent;
  auto* image = dynamic_cast<VmdkImage*>(parent->get());
  if (!image || image->cid() != descriptor.parentCid) {
    return Error(ErrorKind::corrupt, fmt::format("its parent {} was changed since (content id {:08x} for {:08x})",
                                                 inQuotes(name), image ? image->cid() : 0, descriptor.parentCid))
        .withHint("'lodge image rebase -u' accepts it as it is");
  }
  return parent;
}

Result<std::unique_ptr<Image>> openVmdk(const OpenContext& context) {
  std::array<std::byte, 512> head{};
  if (int error = context.file->read(0, head.data(), head.size()); error != 0) {
    return Error::fromErrno(error, "read its header");
  }
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  Opened opened;
  Status done = looksLikeDescriptor(text) ? openDescriptor(context, opened) : openSparse(context, opened);
  if (!done) return std::move(done).error();
  bool readOnly = context.options.file.readOnly;
  if (!readOnly) {
    if (Status good = checkWritable(opened); !good) return std::move(good).error();
  }
  std::unique_ptr<Image> parent;
  std::string parentName = fromWindowsPath(opened.descriptor.parentName);
  if (opened.descriptor.hasParent() && context.options.openBacking) {
    auto image = openParent(context, opened.descriptor, parentName);
    if (!image) return std::move(image).error();
    parent = std::move(*image);
  }
  return std::unique_ptr<Image>(std::make_unique<VmdkImage>(std::move(opened.descriptor), std::move(opened.place),
                                                            std::move(opened.parts), std::move(parent),
                                                            std::move(parentName), readOnly));
}

}  // namespace

const FormatDriver& vmdkDriver() {
  static const FormatDriver driver = {
      .name = "vmdk",
      .summary = "VMware: sparse, flat, split, streamOptimized, delta disks; ESX sparse ones are read",
      .suffixes = {"vmdk"},
      .probe = probeVmdk,
      .open = openVmdk,
      .create = createVmdk,
      .options = {{"subformat",
                   "monolithicSparse|monolithicFlat|twoGbMaxExtentSparse|twoGbMaxExtentFlat|streamOptimized",
                   "monolithicSparse", "streamOptimized is compressed, for ESXi, OVA files and clouds"},
                  {"adapter_type", "ide|lsilogic|buslogic|legacyESX", "ide; lsilogic if streamOptimized",
                   "what the geometry is for"},
                  {"hwversion", "NUMBER", "4; 10 if streamOptimized", "of the virtual hardware"},
                  {"zeroed_grain", "on|off", "off", "grains of zeroes without storage (version 2)"},
                  {"compat6", "on|off", "off", "as hwversion=6"},
                  {"preallocation", "off|falloc|full", "off", "whether flat extents take their room at once"}},
      .backing = true,
      .compression = true,
  };
  return driver;
}

}  // namespace lodge::image
