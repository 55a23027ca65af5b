// SPDX-License-Identifier: Apache-2.0
// Opening, closing, and what is told about an image.
#include "image/qcow2_image.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"

namespace lodge::image::qcow2 {

namespace {

unsigned l2BitsOf(const Header& h) {
  return h.clusterBits - (h.extendedL2() ? 4 : 3);
}

}  // namespace

Qcow2Image::Qcow2Image(std::shared_ptr<BlockFile> file, Header header, const OpenContext& context)
    : file_(std::move(file)),
      header_(std::move(header)),
      clusterBytes_(header_.clusterBytes()),
      l2Bits_(l2BitsOf(header_)),
      size_(header_.size),
      readOnly_(file_->readOnly() || context.options.file.readOnly || !context.options.snapshot.empty()),
      cache_(file_, clusterBytes_) {}

Qcow2Image::~Qcow2Image() {
  if (readOnly_) return;
  if (int error = settle(); error != 0)
    log(LogLevel::error, "close {}: {}", inQuotes(file_->name()), Error::fromErrno(error, "write metadata").message());
}

void Qcow2Image::corrupted(const std::string& what) {
  if (!failed_.exchange(true)) log(LogLevel::error, "image {} is corrupt: {}", inQuotes(file_->name()), what);
}

Result<std::unique_ptr<Image>> Qcow2Image::open(const OpenContext& context) {
  auto header = readHeader(*context.file);
  if (!header) return std::move(header).error();
  std::unique_ptr<Qcow2Image> image(new Qcow2Image(context.file, std::move(*header), context));
  if (Status loaded = image->load(context); !loaded) {
    image->readOnly_ = true;  // nothing is to be written by closing it
    return std::move(loaded).error();
  }
  return std::unique_ptr<Image>(std::move(image));
}

Status Qcow2Image::load(const OpenContext& context) {
  const OpenOptions& options = context.options;
  std::uint64_t tableBytes = 0;
  auto snapshots = readSnapshots(*file_, header_, tableBytes);
  if (snapshots)
    snapshots_ = std::move(*snapshots);
  else if (!options.forCheck || !readOnly_)
    return std::move(snapshots).error();
  if (options.snapshot.empty()) {
    if (Status l1 = loadL1(header_.l1Offset, header_.l1Entries); !l1) return l1;
  } else {
    std::size_t index = findSnapshot(options.snapshot);
    if (index == snapshots_.size()) return Error(ErrorKind::notFound, "no snapshot " + inQuotes(options.snapshot));
    const Snapshot& s = snapshots_[index];
    size_ = s.about.diskBytes;
    if (s.l1Entries < (size() + header_.bytesPerL2() - 1) / header_.bytesPerL2())
      return Error(ErrorKind::corrupt, "the snapshot's L1 table is too small");
    if (Status l1 = loadL1(s.l1Offset, s.l1Entries); !l1) return l1;
  }
  if (header_.hasDataFile() && !options.forCheck) {
    std::string name = header_.extensionText(extension::dataFile);
    auto given = options.extra.find("data-file");
    if (given != options.extra.end()) name = given->second;
    auto file = openCompanion(context, name);
    if (!file) return std::move(file).error().context("external data file");
    dataFile_ = std::move(*file);
  }
  if (options.openBacking && !header_.backingName.empty()) {
    auto backing = openBacking(context, header_.backingName, header_.extensionText(extension::backingFormat));
    if (!backing) return std::move(backing).error();
    backing_ = std::move(*backing);
  }
  if (readOnly_) return {};
  if (!options.forCheck) {
    if ((header_.incompatible & incompatible::corrupt) != 0)
      return Error(ErrorKind::corrupt, "marked as corrupt: it is only read")
          .withHint("repair it: lodge image check -r all");
  }
  auto bitmaps = BitmapKeeper::open(*this, *file_, header_);
  if (bitmaps)
    bitmaps_ = std::move(*bitmaps);
  else if (!options.forCheck)
    return std::move(bitmaps).error();
  return prepareWriting();
}

Status Qcow2Image::prepareWriting() {
  if (reloadRefcountTable() != 0) return Error(ErrorKind::io, "read the refcount table");
  freshFrom_ = clusterUp(file_->size());
  if ((header_.incompatible & incompatible::dirty) != 0) {
    // Left by a writer with lazy refcounts: they have to be counted anew.
    auto repaired = check(Repair::all);
    if (!repaired) return std::move(repaired).error().context("recover after an unclean end");
    if (repaired->corruptions != 0) return Error(ErrorKind::corrupt, "not closed cleanly, and cannot be repaired");
  }
  if ((header_.autoclear & ~autoclear::known) != 0) {
    header_.autoclear &= autoclear::known;
    return storeHeader();
  }
  return {};
}

Status Qcow2Image::readTable(std::uint64_t offset, std::uint64_t entries, std::vector<std::uint64_t>& words) const {
  words.resize(entries);
  if (int error = file_->read(offset, words.data(), entries * 8); error != 0)
    return Error::fromErrno(error, fmt::format("read the table at 0x{:x}", offset));
  for (std::uint64_t& word : words) word = __builtin_bswap64(word);
  return {};
}

int Qcow2Image::writeTable(std::uint64_t offset, const std::vector<std::uint64_t>& words) {
  std::vector<std::uint64_t> stored(words.size());
  std::transform(words.begin(), words.end(), stored.begin(),
                 [](std::uint64_t word) { return __builtin_bswap64(word); });
  stored.resize(clusterUp(words.size() * 8) / 8);
  return file_->write(offset, stored.data(), stored.size() * 8);
}

Status Qcow2Image::loadL1(std::uint64_t offset, std::uint32_t entries) {
  if (entries > kMaxL1Bytes / 8 || (entries != 0 && offset % cluster() != 0))
    return Error(ErrorKind::corrupt, fmt::format("L1 table at 0x{:x}, {} entries", offset, entries));
  return readTable(offset, entries, l1_);
}

Result<ImageInfo> Qcow2Image::info() {
  ImageInfo info;
  info.format = "qcow2";
  info.virtualBytes = size();
  info.allocatedBytes = file_->allocatedBytes() + (dataFile_ ? dataFile_->allocatedBytes() : 0);
  info.clusterBytes = cluster();
  info.backingName = header_.backingName;
  info.backingFormat = header_.extensionText(extension::backingFormat);
  info.dirty = (header_.incompatible & incompatible::dirty) != 0;
  for (const Snapshot& s : snapshots_) info.snapshots.push_back(s.about);
  auto add = [&](const char* name, InfoValue value) { info.details.emplace_back(name, std::move(value)); };
  add("compat", std::string(header_.version == 2 ? "0.10" : "1.1"));
  add("compression type", std::string(header_.compression == Compression::zstd ? "zstd" : "zlib"));
  if (header_.version >= 3) add("lazy refcounts", (header_.compatible & compatible::lazyRefcounts) != 0);
  add("refcount bits", std::uint64_t{1} << header_.refcountOrder);
  if (header_.version >= 3) {
    add("corrupt", (header_.incompatible & incompatible::corrupt) != 0);
    add("extended l2", header_.extendedL2());
  }
  if (header_.hasDataFile()) {
    add("data file", header_.extensionText(extension::dataFile));
    add("data file raw", header_.rawDataFile());
    info.files.push_back(header_.extensionText(extension::dataFile));
  }
  auto bitmaps = bitmapStore_.list();
  if (bitmaps && !bitmaps->empty()) {
    InfoRows rows;
    for (const BitmapInfo& bitmap : *bitmaps) {
      std::vector<std::string> flags;
      if (bitmap.inUse) flags.emplace_back("in-use");
      if (bitmap.recording) flags.emplace_back("auto");
      rows.push_back({{"flags", flags}, {"name", bitmap.name}, {"granularity", bitmap.granularity}});
    }
    add("bitmaps", std::move(rows));
  }
  return info;
}

Status Qcow2Image::changeBacking(const std::string& name, const std::string& format) {
  if (header_.rawDataFile() && !name.empty())
    return Error(ErrorKind::unsupported, "an image with a raw data file has no backing image");
  header_.backingName = name;
  header_.setExtension(extension::backingFormat, name.empty() ? "" : format);
  if (Status stored = storeHeader(); !stored) return stored;
  if (int error = file_->flush(); error != 0) return Error::fromErrno(error, "write the header");
  return {};
}

}  // namespace lodge::image::qcow2
