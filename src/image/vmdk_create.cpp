// SPDX-License-Identifier: Apache-2.0
#include "image/vmdk_create.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "base/text.h"
#include "base/units.h"
#include "image/vmdk_image.h"

namespace lodge::image::vmdk {

namespace {

constexpr std::uint64_t kGrain = 128, kPerTable = 512;        // sectors, entries: what every product uses
constexpr std::uint64_t kSplitSectors = 4192256;              // 2047 MiB, as VMware splits
constexpr std::uint64_t kMaxSparse = std::uint64_t{2} << 40;  // 32-bit sector numbers, with tables
constexpr std::uint64_t kMaxDisk = std::uint64_t{62} << 40;   // VMware's limit

struct Plan {
  std::string kind, adapter, hardware;
  bool flat = false, split = false, stream = false, zeroedGrain = false;
  std::uint64_t sectors = 0;
  std::uint32_t cid = 0, parentCid = 0xffffffff;
  std::string stem;  ///< of the extents' names
};

Result<Plan> planOf(const CreateRequest& request) {
  Plan plan;
  plan.kind = request.option("subformat", "monolithicSparse");
  static constexpr std::string_view kKinds[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                                                "twoGbMaxExtentFlat", "streamOptimized"};
  if (std::find(std::begin(kKinds), std::end(kKinds), plan.kind) == std::end(kKinds)) {
    return Error(ErrorKind::invalidArgument, "option subformat: " + inQuotes(plan.kind))
        .withHint("use " + fmt::format("{}", fmt::join(kKinds, ", ")));
  }
  plan.flat = plan.kind.ends_with("Flat");
  plan.split = plan.kind.starts_with("twoGb");
  plan.stream = plan.kind == "streamOptimized";
  plan.adapter = request.option("adapter_type", plan.stream ? "lsilogic" : "ide");
  static constexpr std::string_view kAdapters[] = {"ide", "lsilogic", "buslogic", "legacyESX"};
  if (std::find(std::begin(kAdapters), std::end(kAdapters), plan.adapter) == std::end(kAdapters)) {
    return Error(ErrorKind::invalidArgument, "option adapter_type: " + inQuotes(plan.adapter))
        .withHint("use ide, lsilogic, buslogic or legacyESX");
  }
  auto compat6 = switchOption(request, "compat6", false);
  if (!compat6) return std::move(compat6).error();
  plan.hardware = request.option("hwversion", *compat6 ? "6" : plan.stream ? "10" : "4");
  if (!parseNumber(plan.hardware, 100)) {
    return Error(ErrorKind::invalidArgument, "option hwversion: " + inQuotes(plan.hardware) + " is not a number");
  }
  auto zeroed = switchOption(request, "zeroed_grain", false);
  if (!zeroed) return std::move(zeroed).error();
  plan.zeroedGrain = *zeroed;
  plan.sectors = (request.bytes + kSector - 1) / kSector;
  std::uint64_t most = plan.flat || plan.split ? kMaxDisk : plan.stream ? kMaxDisk : kMaxSparse * 8;
  if (plan.sectors == 0 || plan.sectors * kSector > most) {
    return Error(ErrorKind::invalidArgument, fmt::format("a VMDK of {} bytes", request.bytes))
        .withHint("this kind has room for " + formatSize(most));
  }
  while (plan.cid == 0 || plan.cid >= 0xfffffffe) plan.cid = std::random_device()();
  std::string name = fileNameOf(request.lastingPath());
  if (name.find_first_of("\"\n\r") != std::string::npos) {
    return Error(ErrorKind::invalidArgument, "a descriptor cannot hold the file name " + inQuotes(name));
  }
  plan.stem = name.ends_with(".vmdk") ? name.substr(0, name.size() - 5) : name;
  return plan;
}

Status planParent(const CreateRequest& request, Plan& plan) {
  if (request.backingName.empty()) return {};
  if (plan.flat || plan.stream) {
    return Error(ErrorKind::invalidArgument, "a VMDK of this kind has no parent")
        .withHint("use subformat=monolithicSparse or twoGbMaxExtentSparse");
  }
  if (request.backingName.find_first_of("\"\n\r") != std::string::npos) {
    return Error(ErrorKind::invalidArgument, "a descriptor cannot hold the name " + inQuotes(request.backingName));
  }
  auto parent = openNewParent(request);
  if (!parent) return std::move(parent).error();
  auto* image = dynamic_cast<VmdkImage*>(parent->get());
  if (!image) return wrongParent(request, "VMDK");
  plan.parentCid = image->cid();
  return {};
}

SparseHeader makeHeader(const Plan& plan, std::uint64_t sectors, std::uint64_t descriptorSectors) {
  SparseHeader header{};
  header.magic = kMagic;
  header.version = plan.zeroedGrain ? 2 : 1;
  header.capacity = sectors;
  header.grainSize = kGrain;
  header.entriesPerTable = kPerTable;
  header.descriptorOffset = descriptorSectors == 0 ? 0 : 1;
  header.descriptorSize = descriptorSectors;
  header.lineEnds = {'\n', ' ', '\r', '\n'};
  std::uint64_t tables = (sectors + kGrain * kPerTable - 1) / (kGrain * kPerTable);
  std::uint64_t directory = (tables * 4 + kSector - 1) / kSector, table = kPerTable * 4 / kSector;
  if (plan.stream) {
    header.flags = kNewlineTest | kCompressed | kMarkers;
    header.compression = 1;
    header.directory = kDirectoryAtEnd;
    header.overhead = alignUp(1 + descriptorSectors, kGrain);
    return header;
  }
  header.flags = kNewlineTest | kRedundantTable | (plan.zeroedGrain ? kZeroedGrains : 0U);
  header.redundantDirectory = 1 + descriptorSectors;
  header.directory = header.redundantDirectory + directory + tables * table;
  header.overhead = alignUp(header.directory + directory + tables * table, kGrain);
  return header;
}

/// Both directories; their tables follow them and are holes until they are needed.
int writeDirectories(BlockFile& file, const SparseHeader& header) {
  std::uint64_t tables = (header.capacity + kGrain * kPerTable - 1) / (kGrain * kPerTable);
  std::uint64_t directory = (tables * 4 + kSector - 1) / kSector;
  for (std::uint64_t at : {std::uint64_t{header.redundantDirectory}, std::uint64_t{header.directory}}) {
    std::vector<Le32> entries(directory * kSector / 4);
    for (std::uint64_t i = 0; i < tables; ++i) {
      entries[i] = static_cast<std::uint32_t>(at + directory + i * (kPerTable * 4 / kSector));
    }
    if (int error = file.write(at * kSector, entries.data(), entries.size() * 4); error != 0) return error;
  }
  return file.truncate(header.overhead * kSector);
}

int writeSparse(BlockFile& file, const Plan& plan, std::uint64_t sectors, const std::string& descriptor) {
  // VMware keeps 20 sectors for the descriptor; a stream's is followed by data and needs no more than it has.
  std::uint64_t room = descriptor.empty() ? 0 : std::max<std::uint64_t>(20, (descriptor.size() + 4096) / kSector);
  SparseHeader header = makeHeader(plan, sectors, room);
  std::string text = descriptor;
  text.resize(room * kSector, '\0');
  int error = file.write(0, &header, sizeof header);
  if (error == 0 && room != 0) error = file.write(kSector, text.data(), text.size());
  if (error != 0) return error;
  return plan.stream ? writeEmptyStream(file, header) : writeDirectories(file, header);
}

Status makeExtent(const CreateRequest& request, const Plan& plan, const ExtentLine& line) {
  std::string folder = folderOf(request.path);
  auto file = request.files->create(folder == "." ? line.file : folder + "/" + line.file, request.replace);
  if (!file) return std::move(file).error();
  std::uint64_t bytes = line.sectors * kSector;
  bool room = request.preallocation == Preallocation::falloc || request.preallocation == Preallocation::full;
  int error = !plan.flat ? writeSparse(**file, plan, line.sectors, "")
              : room     ? reserveRoom(**file, 0, bytes, request.progress)
                         : (*file)->truncate(bytes);
  if (error != 0) return Error::fromErrno(error, "write extent " + inQuotes(line.file));
  return {};
}

}  // namespace

Status createVmdk(const CreateRequest& request) {
  auto plan = planOf(request);
  if (!plan) return std::move(plan).error();
  if (Status good = planParent(request, *plan); !good) return good;
  DescriptorRequest descriptor{plan->kind,    {}, plan->cid, plan->parentCid, request.backingName, plan->adapter,
                               plan->hardware};
  std::string type = plan->flat ? "FLAT" : "SPARSE";
  bool alone = !plan->flat && !plan->split;
  std::uint64_t part = plan->split ? kSplitSectors : plan->sectors;
  for (std::uint64_t at = 0; at < plan->sectors; at += part) {
    std::string name = alone         ? fileNameOf(request.lastingPath())
                       : plan->split ? fmt::format("{}-{}{:03}.vmdk", plan->stem, plan->flat ? 'f' : 's', at / part + 1)
                                     : plan->stem + "-flat.vmdk";
    Access access = plan->stream ? Access::readOnly : Access::readWrite;
    descriptor.extents.push_back({access, std::min(part, plan->sectors - at), type, name, 0});
  }
  if (descriptor.extents.size() > kMaxExtents) {
    return Error(ErrorKind::invalidArgument, fmt::format("a disk in {} pieces", descriptor.extents.size()))
        .withHint("use monolithicFlat");
  }
  std::string text = makeDescriptor(descriptor);
  if (!alone) {
    for (const ExtentLine& line : descriptor.extents) {
      if (Status made = makeExtent(request, *plan, line); !made) return made;
    }
  }
  auto file = request.files->create(request.path, request.replace);
  if (!file) return std::move(file).error();
  int error = alone ? writeSparse(**file, *plan, plan->sectors, text) : (*file)->write(0, text.data(), text.size());
  if (error != 0) return Error::fromErrno(error, "write it");
  return {};
}

}  // namespace lodge::image::vmdk
