// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_bitmaps.h"

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "base/units.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

namespace {

/// QEMU's docs/interop/qcow2.txt, "Bitmap directory".
constexpr std::uint32_t kInUse = 1, kAuto = 2, kExtraDataCompatible = 4, kKnownFlags = 7;
constexpr std::uint8_t kDirtyTracking = 1;
constexpr std::uint64_t kAllOnes = 1;  // a table entry without a cluster

Error corrupt(std::string what) {
  return {ErrorKind::corrupt, std::move(what)};
}

/// How many pages a bitmap has: one bit a piece of the disk, one cluster a page.
std::uint64_t pagesOf(const Bitmap& bitmap, std::uint64_t diskBytes, std::uint64_t cluster) {
  std::uint64_t unit = std::uint64_t{1} << bitmap.granularityBits;
  std::uint64_t bits = diskBytes / unit + (diskBytes % unit != 0 ? 1 : 0);
  return (bits + cluster * 8 - 1) / (cluster * 8);
}

}  // namespace

Result<std::vector<Bitmap>> readBitmaps(BlockFile& file, const Header& header) {
  std::string data = header.extensionText(extension::bitmaps);
  std::vector<Bitmap> bitmaps;
  if (data.empty()) return bitmaps;
  if (data.size() != 24) return corrupt("bitmaps extension");
  std::uint32_t count = loadBe<std::uint32_t>(data.data());
  std::uint64_t bytes = loadBe<std::uint64_t>(data.data() + 8), at = loadBe<std::uint64_t>(data.data() + 16);
  if (count == 0 || count > 65535 || bytes > (64u << 20) || at % header.clusterBytes() != 0 || at >= file.size())
    return corrupt("bitmap directory");
  std::vector<char> directory(bytes);
  if (int error = file.read(at, directory.data(), bytes); error != 0)
    return Error::fromErrno(error, "read the bitmaps");
  std::size_t position = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (bytes - position < 24) return corrupt("bitmap directory");
    const char* p = directory.data() + position;
    std::uint32_t nameBytes = loadBe<std::uint16_t>(p + 18), extra = loadBe<std::uint32_t>(p + 20);
    std::uint64_t entryBytes = alignUp(std::uint64_t{24} + nameBytes + extra, 8);
    if (entryBytes > bytes - position) return corrupt("bitmap directory");
    bitmaps.push_back({.name = std::string(p + 24 + extra, nameBytes),
                       .tableOffset = loadBe<std::uint64_t>(p),
                       .tableEntries = loadBe<std::uint32_t>(p + 8),
                       .flags = loadBe<std::uint32_t>(p + 12),
                       .granularityBits = static_cast<std::uint8_t>(p[17]),
                       .type = static_cast<std::uint8_t>(p[16]),
                       .extraBytes = extra,
                       .flagsOffset = at + position + 12});
    position += entryBytes;
  }
  return bitmaps;
}

Result<std::unique_ptr<BitmapKeeper>> BitmapKeeper::open(Qcow2Image& image, BlockFile& file, const Header& header) {
  // Without the flag somebody has written who does not know bitmaps: they are out of date already.
  if ((header.autoclear & autoclear::bitmaps) == 0) return std::unique_ptr<BitmapKeeper>();
  auto bitmaps = readBitmaps(file, header);
  if (!bitmaps) return std::move(bitmaps).error();
  std::unique_ptr<BitmapKeeper> keeper(new BitmapKeeper(image, file, header.clusterBytes()));
  for (Bitmap& bitmap : *bitmaps) {
    // Frozen ones stay as they are; those that were in use when something crashed say so.
    if ((bitmap.flags & kAuto) == 0 || (bitmap.flags & kInUse) != 0) continue;
    std::string what = "dirty bitmap " + inQuotes(bitmap.name);
    bool unknown = bitmap.type != kDirtyTracking || (bitmap.flags & ~kKnownFlags) != 0 ||
                   (bitmap.extraBytes != 0 && (bitmap.flags & kExtraDataCompatible) == 0);
    if (unknown)
      return Error(ErrorKind::unsupported,
                   what + " is of a kind that is not known here, and writing would make it stale")
          .withHint("open it read-only, write to an overlay, or remove it: qemu-img bitmap --remove FILE NAME");
    std::uint64_t pages = bitmap.granularityBits < 9 || bitmap.granularityBits > 31
                              ? 0
                              : pagesOf(bitmap, header.size, header.clusterBytes());
    if (pages != bitmap.tableEntries || pages * 8 > kMaxL1Bytes || bitmap.tableOffset % header.clusterBytes() != 0 ||
        bitmap.tableOffset == 0 || bitmap.tableOffset >= file.size())
      return corrupt(what + " does not fit the disk");
    std::vector<std::uint64_t> table(pages);
    if (int error = file.read(bitmap.tableOffset, table.data(), pages * 8); error != 0)
      return Error::fromErrno(error, "read " + what);
    for (std::uint64_t& word : table) {
      word = __builtin_bswap64(word);
      std::uint64_t host = word & entry::offsetMask;
      if (host % header.clusterBytes() != 0 || host >= file.size() || (host == 0 && (word & ~kAllOnes) != 0))
        return corrupt(what + " has an entry that leads nowhere");
    }
    keeper->bitmaps_.push_back({std::move(bitmap), std::move(table), {}});
  }
  if (keeper->bitmaps_.empty()) keeper.reset();
  return keeper;
}

int BitmapKeeper::setInUse(bool inUse) {
  for (Kept& bitmap : bitmaps_) {
    std::uint32_t flags = __builtin_bswap32(inUse ? bitmap.about.flags | kInUse : bitmap.about.flags);
    if (int error = file_.write(bitmap.about.flagsOffset, &flags, sizeof flags); error != 0) return error;
  }
  return file_.flush();
}

int BitmapKeeper::mark(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return 0;
  std::lock_guard lock(mutex_);
  if (!begun_) {
    if (int error = setInUse(true); error != 0) return error;
    begun_ = true;
  }
  for (Kept& bitmap : bitmaps_) {
    if (int error = markIn(bitmap, offset, length); error != 0) return error;
  }
  return pageBytes_ > kMaxPageBytes ? writePages() : 0;
}

int BitmapKeeper::markIn(Kept& bitmap, std::uint64_t offset, std::uint64_t length) {
  std::uint64_t perPage = cluster_ * 8, begin = offset >> bitmap.about.granularityBits;
  std::uint64_t end = ((offset + length - 1) >> bitmap.about.granularityBits) + 1;
  for (std::uint64_t bit = begin; bit < end;) {
    std::uint64_t index = bit / perPage, stop = std::min(end, (index + 1) * perPage);
    if (index >= bitmap.table.size()) return 0;
    std::vector<std::uint8_t>* page = nullptr;
    bool whole = bit == index * perPage && stop == (index + 1) * perPage;
    if (whole && (bitmap.table[index] & entry::offsetMask) == 0) {
      pageBytes_ -= bitmap.pages.erase(index) * cluster_;
      bitmap.table[index] = kAllOnes;
    } else if (bitmap.table[index] != kAllOnes) {
      if (int error = loadPage(bitmap, index, page); error != 0) return error;
      for (std::uint64_t i = bit % perPage, last = (stop - 1) % perPage; i <= last;) {
        bool byte = i % 8 == 0 && i + 7 <= last;
        (*page)[i / 8] = static_cast<std::uint8_t>(byte ? 0xff : (*page)[i / 8] | 1u << i % 8);
        i += byte ? 8 : 1;
      }
    }
    bit = stop;
  }
  return 0;
}

int BitmapKeeper::loadPage(Kept& bitmap, std::uint64_t index, std::vector<std::uint8_t>*& page) {
  auto [it, fresh] = bitmap.pages.try_emplace(index);
  page = &it->second;
  if (!fresh) return 0;
  std::vector<std::uint8_t> bytes(cluster_);
  std::uint64_t host = bitmap.table[index] & entry::offsetMask;
  if (int error = host == 0 ? 0 : file_.read(host, bytes.data(), bytes.size()); error != 0) {
    bitmap.pages.erase(it);
    return error;
  }
  *page = std::move(bytes);
  pageBytes_ += cluster_;
  return 0;
}

/// Pages, then the counts of their clusters, then the tables: none leads to a cluster that is not counted.
int BitmapKeeper::writePages() {
  for (Kept& bitmap : bitmaps_) {
    for (auto& [index, bytes] : bitmap.pages) {
      std::uint64_t host = bitmap.table[index] & entry::offsetMask;
      if (host == 0) {
        if (int error = image_.allocateOne(host); error != 0) return error;
        bitmap.table[index] = host;
      }
      if (int error = file_.write(host, bytes.data(), bytes.size()); error != 0) return error;
    }
    bitmap.pages.clear();
  }
  pageBytes_ = 0;
  if (int error = image_.flush(); error != 0) return error;
  for (Kept& bitmap : bitmaps_) {
    std::vector<std::uint64_t> stored(bitmap.table.size());
    std::transform(bitmap.table.begin(), bitmap.table.end(), stored.begin(),
                   [](std::uint64_t word) { return __builtin_bswap64(word); });
    if (int error = file_.write(bitmap.about.tableOffset, stored.data(), stored.size() * 8); error != 0) return error;
  }
  return 0;
}

int BitmapKeeper::store() {
  std::lock_guard lock(mutex_);
  if (!begun_) return 0;
  if (int error = writePages(); error != 0) return error;
  if (int error = file_.flush(); error != 0) return error;
  if (int error = setInUse(false); error != 0) return error;
  begun_ = false;
  return 0;
}

}  // namespace lodge::image::qcow2
