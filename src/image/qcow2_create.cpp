// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"
#include "image/drivers.h"
#include "image/qcow2_image.h"

namespace lodge::image {

namespace qcow2 {
namespace {

Error badOption(std::string_view name, const std::string& value, std::string hint) {
  return Error(ErrorKind::invalidArgument, fmt::format("option {}={}", name, inQuotes(value)))
      .withHint(std::move(hint));
}

Result<unsigned> powerOption(const CreateRequest& request, std::string_view name, std::uint64_t otherwise, unsigned low,
                             unsigned high) {
  auto value = sizeOption(request, name, otherwise);
  if (!value) return std::move(value).error();
  if (!std::has_single_bit(*value) || *value < std::uint64_t{1} << low || *value > std::uint64_t{1} << high)
    return badOption(name, request.option(name),
                     fmt::format("use a power of two from {} to {}", 1ull << low, 1ull << high));
  return static_cast<unsigned>(std::countr_zero(*value));
}

/// The names that other programs print when they do not know a bit (qcow2.txt, "Feature name table").
std::string featureNames() {
  struct Row {
    char type, bit;
    std::string_view name;
  };
  constexpr Row kRows[] = {{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
                           {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
                           {2, 0, "bitmaps"},          {2, 1, "raw external data"}};
  std::string table;
  for (const Row& row : kRows) {
    std::string text = {row.type, row.bit};
    text += row.name;
    text.resize(48);
    table += text;
  }
  return table;
}

Status readFlags(const CreateRequest& request, Header& h) {
  auto flag = [&](std::string_view name, std::uint64_t& bits, std::uint64_t bit) -> Status {
    auto on = switchOption(request, name, false);
    if (!on) return std::move(on).error();
    if (*on && h.version == 2) return badOption(name, "on", "it needs compat=1.1");
    if (*on) bits |= bit;
    return {};
  };
  if (Status s = flag("lazy_refcounts", h.compatible, compatible::lazyRefcounts); !s) return s;
  if (Status s = flag("extended_l2", h.incompatible, incompatible::extendedL2); !s) return s;
  if (Status s = flag("data_file_raw", h.autoclear, autoclear::rawData); !s) return s;
  std::string compression = request.option("compression_type", "zlib");
  if (compression != "zlib" && compression != "zstd")
    return badOption("compression_type", compression, "use zlib or zstd");
  if (compression == "zstd") {
    if (h.version == 2) return badOption("compression_type", compression, "it needs compat=1.1");
    h.incompatible |= incompatible::compressionType;
    h.compression = Compression::zstd;
  }
  std::string dataFile = request.option("data_file");
  if (dataFile.empty() && h.rawDataFile()) return badOption("data_file_raw", "on", "it needs data_file=NAME");
  if (!dataFile.empty()) {
    if (h.version == 2) return badOption("data_file", dataFile, "it needs compat=1.1");
    if (h.rawDataFile() && !request.backingName.empty())
      return badOption("data_file_raw", "on", "it excludes a backing image");
    h.incompatible |= incompatible::dataFile;
    h.setExtension(extension::dataFile, dataFile);
  }
  return {};
}

Result<Header> headerFor(const CreateRequest& request) {
  Header h;
  std::string compat = request.option("compat", "1.1");
  if (compat == "0.10" || compat == "v2")
    h.version = 2;
  else if (compat != "1.1" && compat != "v3")
    return badOption("compat", compat, "use 1.1 or 0.10");
  if (Status flags = readFlags(request, h); !flags) return std::move(flags).error();
  auto clusterBits =
      powerOption(request, "cluster_size", h.extendedL2() ? 128_KiB : 64_KiB, kMinClusterBits, kMaxClusterBits);
  if (!clusterBits) return std::move(clusterBits).error();
  h.clusterBits = *clusterBits;
  if (h.extendedL2() && h.clusterBits < 14)
    return badOption("cluster_size", request.option("cluster_size"), "extended_l2 needs 16K or more");
  auto order = powerOption(request, "refcount_bits", 16, 0, 6);
  if (!order) return std::move(order).error();
  h.refcountOrder = *order;
  if (h.version == 2 && h.refcountOrder != 4)
    return badOption("refcount_bits", request.option("refcount_bits"), "others than 16 need compat=1.1");
  if (h.version == 2) h.headerLength = 72;
  h.backingName = request.backingName;
  if (!request.backingName.empty()) h.setExtension(extension::backingFormat, request.backingFormat);
  if (h.version == 3 && h.clusterBits >= 12) h.setExtension(extension::featureNames, featureNames());
  h.refTableOffset = h.clusterBytes();
  h.refTableClusters = 1;
  return h;
}

Status writeEmpty(BlockFile& file, const Header& h) {
  if (Status written = writeHeader(file, h); !written) return written;
  // Header, refcount table, refcount block: three clusters, each used once.
  std::vector<std::uint8_t> tables(2 * h.clusterBytes());
  storeLe(tables.data(), __builtin_bswap64(2 * h.clusterBytes()));
  std::uint8_t* block = tables.data() + h.clusterBytes();
  unsigned bits = 1u << h.refcountOrder;
  for (unsigned i = 0; i < 3; ++i) {
    if (bits < 8)
      block[i * bits / 8] = static_cast<std::uint8_t>(block[i * bits / 8] | 1u << (i * bits % 8));
    else
      block[i * bits / 8 + bits / 8 - 1] = 1;
  }
  if (int error = file.write(h.clusterBytes(), tables.data(), tables.size()); error != 0)
    return Error::fromErrno(error, "write tables");
  return {};
}

}  // namespace

Status createQcow2(const CreateRequest& request) {
  auto header = headerFor(request);
  if (!header) return std::move(header).error();
  std::uint64_t l1 = (request.bytes + header->bytesPerL2() - 1) / header->bytesPerL2();
  if (l1 > kMaxL1Bytes / 8)
    return Error(ErrorKind::invalidArgument, fmt::format("a disk of {} does not fit", formatSize(request.bytes)))
        .withHint("use larger clusters: -o cluster_size=64K holds 2 PiB");
  bool preallocates = request.preallocation != Preallocation::off;
  if (preallocates && !request.backingName.empty())
    return Error(ErrorKind::invalidArgument, "preallocated clusters would hide the backing image")
        .withHint("leave one of them out");
  OpenContext context;
  context.path = request.path;
  context.files = request.files;
  context.options.file.readOnly = false;
  context.options.openBacking = false;
  if (header->hasDataFile()) {
    // A name of the user's own: it may lead anywhere, and content that is there already is kept.
    context.options.paths = PathPolicy::anywhere;
    auto path = resolveName(context, request.option("data_file"));
    if (!path) return std::move(path).error();
    auto data = request.files->open(*path, context.options.file);
    if (!data && data.error().kind() == ErrorKind::notFound) data = request.files->create(*path, false);
    if (!data) return std::move(data).error();
    if (header->rawDataFile() && (*data)->size() < request.bytes) {
      if (int error = (*data)->truncate(request.bytes); error != 0)
        return Error::fromErrno(error, "size the data file");
    }
  }
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  if (Status written = writeEmpty(**file, *header); !written) return written;
  context.file = std::move(*file);
  auto image = Qcow2Image::open(context);
  if (!image) return std::move(image).error();
  (*image)->onProgress(request.progress);
  Preallocation preallocation =
      header->rawDataFile() && !preallocates ? Preallocation::metadata : request.preallocation;
  if (Status sized = (*image)->resize(request.bytes, preallocation); !sized) return sized;
  if (int error = (*image)->flush(); error != 0) return Error::fromErrno(error, "write it");
  return {};
}

}  // namespace qcow2

namespace {

int probe(const Probe& probe) {
  return probe.head.size() >= 8 && loadBe<std::uint32_t>(probe.head.data()) == qcow2::kMagic &&
                 loadBe<std::uint32_t>(probe.head.data() + 4) >= 2
             ? 100
             : 0;
}

}  // namespace

const FormatDriver& qcow2Driver() {
  static const FormatDriver driver = {
      .name = "qcow2",
      .summary = "QEMU's format: backing images, snapshots, compression",
      .suffixes = {"qcow2", "qcow"},
      .probe = probe,
      .open = qcow2::Qcow2Image::open,
      .create = qcow2::createQcow2,
      .options = {{"compat", "1.1|0.10", "1.1", "Version 3 of the format, or 2 for old programs."},
                  {"cluster_size", "SIZE", "64K", "Unit of allocation, 512 to 2M."},
                  {"refcount_bits", "1|2|4|8|16|32|64", "16", "Width of the counts of use."},
                  {"compression_type", "zlib|zstd", "zlib", "How compressed clusters are packed."},
                  {"extended_l2", "on|off", "off", "Allocate 32nds of clusters (of 16K or more)."},
                  {"lazy_refcounts", "on|off", "off", "Let QEMU postpone counting; a crash then needs a repair."},
                  {"preallocation", "off|metadata|falloc|full", "off", "Reserve the disk's room at once."},
                  {"data_file", "NAME", "", "Keep the content in a file of its own."},
                  {"data_file_raw", "on|off", "off", "That file is a raw image of the disk."}},
      .backing = true,
      .compression = true,
      .snapshots = true,
  };
  return driver;
}

}  // namespace lodge::image
