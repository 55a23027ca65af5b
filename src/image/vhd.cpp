// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/drivers.h"
#include "image/vhd_image.h"

namespace lodge::image {

namespace {

using vhd::Footer;
using vhd::Header;
using vhd::kSector;

constexpr std::uint64_t kDefaultBlock = 2_MiB;

bool hasCookie(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(Footer) && std::memcmp(bytes.data(), "conectix", 8) == 0;
}

int probeVhd(const Probe& probe) {
  if (hasCookie(probe.head)) return 100;
  if (probe.tail.size() < sizeof(Footer)) return 0;
  Footer footer{};
  std::memcpy(&footer, probe.tail.data() + probe.tail.size() - sizeof footer, sizeof footer);
  return vhd::isGood(footer) ? 95 : 0;
}

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, what);
}

Result<Footer> readFooter(BlockFile& file) {
  Footer front{}, last{};
  std::uint64_t bytes = file.size();
  if (bytes < sizeof(Footer)) return bad("the file is too short");
  int error = file.read(0, &front, sizeof front);
  if (error == 0) error = file.read(bytes - sizeof last, &last, sizeof last);
  if (error != 0) return Error::fromErrno(error, "read its footer");
  // The front copy is the one that is always good while an image grows; fixed images have none.
  if (vhd::isGood(front) && front.type != vhd::kFixed) return front;
  if (vhd::isGood(last)) return last;
  return bad("no footer with a right checksum");
}

Status checkFooter(const Footer& footer, std::uint64_t fileBytes) {
  std::uint64_t bytes = footer.currentBytes;
  if (footer.version >> 16 != 1) {
    return Error(ErrorKind::unsupported, fmt::format("version {}.{}", footer.version >> 16, footer.version & 0xffff));
  }
  if (footer.type < vhd::kFixed || footer.type > vhd::kDifferencing) {
    return bad(fmt::format("disk type {}", std::uint32_t{footer.type}));
  }
  if (bytes == 0 || bytes % kSector != 0) return bad(fmt::format("a disk of {} bytes", bytes));
  if (footer.type == vhd::kFixed && bytes > fileBytes - sizeof(Footer)) {
    return bad(fmt::format("a fixed disk of {} bytes in a file of {}", bytes, fileBytes));
  }
  return {};
}

Result<Header> readHeader(BlockFile& file, const Footer& footer) {
  Header header{};
  if (footer.dataOffset > file.size() - sizeof(Footer)) return bad("its header lies outside the file");
  if (int error = file.read(footer.dataOffset, &header, sizeof header); error != 0) {
    return Error::fromErrno(error, "read its header");
  }
  if (!vhd::isGood(header)) return bad("its header's checksum is wrong");
  std::uint64_t block = header.blockBytes, entries = header.entries;
  if (block < 64_KiB || block > 256_MiB || (block & (block - 1)) != 0) {
    return bad(fmt::format("a block size of {} bytes", block));
  }
  if (entries * block < footer.currentBytes) {
    return bad(fmt::format("{} blocks for a disk of {} bytes", entries, std::uint64_t{footer.currentBytes}));
  }
  if (header.tableOffset % kSector != 0 || header.tableOffset > file.size() ||
      entries * 4 > file.size() - header.tableOffset) {
    return bad("its table of blocks lies outside the file");
  }
  return header;
}

Result<std::unique_ptr<Image>> openParent(const OpenContext& context, const Header& header, std::string& name) {
  auto names = vhd::parentNames(*context.file, header);
  if (!names) return std::move(names).error();
  name = names->front();
  std::optional<Error> first;
  for (const std::string& candidate : *names) {
    auto parent = openBacking(context, candidate, "vhd");
    if (!parent) {
      bool missing = parent.error().kind() == ErrorKind::notFound;
      if (!first) first = std::move(parent).error();
      if (missing) continue;
      break;
    }
    auto* image = dynamic_cast<vhd::VhdImage*>(parent->get());
    if (!image || image->uuid() != header.parentUuid) {
      return bad(fmt::format("{} is not the parent that it was made from: its UUID is another", inQuotes(candidate)))
          .withHint("'lodge image rebase -u' accepts it as it is");
    }
    name = candidate;
    return parent;
  }
  return std::move(*first);
}

Result<std::unique_ptr<Image>> openVhd(const OpenContext& context) {
  auto footer = readFooter(*context.file);
  if (!footer) return std::move(footer).error();
  if (Status good = checkFooter(*footer, context.file->size()); !good) return std::move(good).error();
  Header header{};
  std::unique_ptr<Image> parent;
  std::string parentName;
  if (footer->type != vhd::kFixed) {
    auto read = readHeader(*context.file, *footer);
    if (!read) return std::move(read).error();
    header = *read;
  }
  if (footer->type == vhd::kDifferencing && context.options.openBacking) {
    auto opened = openParent(context, header, parentName);
    if (!opened) return std::move(opened).error();
    parent = std::move(*opened);
  } else if (footer->type == vhd::kDifferencing) {
    auto names = vhd::parentNames(*context.file, header);
    if (names) parentName = names->front();
  }
  return std::unique_ptr<Image>(
      std::make_unique<vhd::VhdImage>(context, *footer, header, std::move(parent), std::move(parentName)));
}

struct Plan {
  vhd::Type type = vhd::kDynamic;
  bool exact = true;
  std::uint64_t bytes = 0, block = kDefaultBlock;
};

Result<Plan> planOf(const CreateRequest& request) {
  Plan plan;
  std::string kind = request.option("subformat", request.backingName.empty() ? "dynamic" : "differencing");
  if (kind != "dynamic" && kind != "fixed" && kind != "differencing") {
    return Error(ErrorKind::invalidArgument, "option subformat: " + inQuotes(kind))
        .withHint("use dynamic, fixed or differencing");
  }
  plan.type = kind == "fixed" ? vhd::kFixed : kind == "dynamic" ? vhd::kDynamic : vhd::kDifferencing;
  if ((plan.type == vhd::kDifferencing) == request.backingName.empty()) {
    return Error(ErrorKind::invalidArgument, "a differencing image, and no other, has a parent")
        .withHint("use -b FILE");
  }
  auto force = switchOption(request, "force_size", false);
  if (!force) return std::move(force).error();
  // Azure takes fixed disks of whole MiB only; Hyper-V takes any exact size; Virtual PC wants a geometry's.
  std::string rule = *force ? "exact" : request.option("size_rule", plan.type == vhd::kFixed ? "mib" : "exact");
  std::uint64_t sectors = (request.bytes + kSector - 1) / kSector;
  if (rule == "chs" && plan.type != vhd::kDifferencing) {
    plan.bytes = vhd::roundToGeometry(sectors) * kSector;
    plan.exact = vhd::geometryOf(plan.bytes / kSector).total() * kSector != plan.bytes;
  } else if (rule == "mib" || rule == "exact" || rule == "chs") {
    plan.bytes = rule == "mib" ? alignUp(sectors * kSector, 1_MiB) : sectors * kSector;
  } else {
    return Error(ErrorKind::invalidArgument, "option size_rule: " + inQuotes(rule)).withHint("use exact, mib or chs");
  }
  auto block = sizeOption(request, "block_size", kDefaultBlock);
  if (!block) return std::move(block).error();
  plan.block = *block;
  if (plan.block != 512_KiB && plan.block != 2_MiB) {
    return Error(ErrorKind::invalidArgument, "option block_size: 512K or 2M is due");
  }
  if (plan.bytes == 0 || plan.bytes > vhd::kMaxBytes) {
    return Error(ErrorKind::invalidArgument, fmt::format("a VHD of {} bytes: 1 sector to 2040 GiB is due", plan.bytes))
        .withHint("VHDX has room for 64 TiB");
  }
  return plan;
}

int createFixed(BlockFile& file, const CreateRequest& request, const Plan& plan) {
  Footer footer = vhd::makeFooter(plan.bytes, plan.type, plan.exact);
  bool room = request.preallocation == Preallocation::falloc || request.preallocation == Preallocation::full;
  int error = room ? reserveRoom(file, 0, plan.bytes, request.progress) : file.truncate(plan.bytes);
  return error == 0 ? file.write(plan.bytes, &footer, sizeof footer) : error;
}

int createSparse(BlockFile& file, const Plan& plan, Header header, const std::vector<std::byte>& parentText) {
  Footer footer = vhd::makeFooter(plan.bytes, plan.type, plan.exact);
  std::uint64_t tableBytes = alignUp(header.entries * std::uint64_t{4}, kSector);
  std::vector<std::byte> table(tableBytes, std::byte{0xff});
  std::uint64_t end = header.tableOffset + tableBytes;
  int error = file.write(0, &footer, sizeof footer);
  if (error == 0) error = file.write(sizeof footer, &header, sizeof header);
  if (error == 0 && !parentText.empty()) {
    error = file.write(sizeof footer + sizeof header, parentText.data(), parentText.size());
  }
  if (error == 0) error = file.write(header.tableOffset, table.data(), table.size());
  return error == 0 ? file.write(end, &footer, sizeof footer) : error;
}

Status fillParent(const CreateRequest& request, Header& header, std::vector<std::byte>& text) {
  auto parent = openNewParent(request);
  if (!parent) return std::move(parent).error();
  auto* image = dynamic_cast<vhd::VhdImage*>(parent->get());
  if (!image) return wrongParent(request, "VHD");
  header.parentUuid = image->uuid();
  header.parentTimestamp = image->timestamp();
  return vhd::setParent(header, request.backingName, sizeof(Footer) + sizeof(Header), text);
}

Status createVhd(const CreateRequest& request) {
  auto plan = planOf(request);
  if (!plan) return std::move(plan).error();
  Header header{};
  std::vector<std::byte> parentText;
  if (plan->type != vhd::kFixed) {
    std::memcpy(header.cookie.data(), "cxsparse", 8);
    header.dataOffset = vhd::kNoOffset;
    header.tableOffset =
        sizeof(Footer) + sizeof(Header) + (plan->type == vhd::kDifferencing ? vhd::kParentTextBytes : 0);
    header.version = 0x00010000;
    header.entries = static_cast<std::uint32_t>((plan->bytes + plan->block - 1) / plan->block);
    header.blockBytes = static_cast<std::uint32_t>(plan->block);
    if (plan->type == vhd::kDifferencing) {
      if (Status filled = fillParent(request, header, parentText); !filled) return filled;
    }
    header.checksum = vhd::checksumOf(header);
  }
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  int error =
      plan->type == vhd::kFixed ? createFixed(**file, request, *plan) : createSparse(**file, *plan, header, parentText);
  if (error != 0) return Error::fromErrno(error, "write it");
  return {};
}

}  // namespace

const FormatDriver& vhdDriver() {
  static const FormatDriver driver = {
      .name = "vhd",
      .summary = "Virtual PC, Hyper-V and Azure: dynamic, fixed, differencing",
      .aliases = {"vpc"},
      .suffixes = {"vhd", "vpc", "avhd"},
      .probe = probeVhd,
      .open = openVhd,
      .create = createVhd,
      .options = {{"subformat", "dynamic|fixed|differencing", "dynamic", "differencing is what -b makes"},
                  {"size_rule", "exact|mib|chs", "exact; mib if fixed",
                   "the disk's size: as it is (Hyper-V), whole MiB (Azure), or a geometry's (Virtual PC)"},
                  {"force_size", "on|off", "off", "as size_rule=exact"},
                  {"block_size", "512K|2M", "2M", "unit of allocation"},
                  {"preallocation", "off|falloc|full", "off", "whether a fixed image takes its room at once"}},
      .backing = true,
  };
  return driver;
}

}  // namespace lodge::image
