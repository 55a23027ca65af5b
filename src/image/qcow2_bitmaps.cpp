// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_bitmaps.h"

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "base/units.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

Result<std::unique_ptr<BitmapKeeper>> BitmapKeeper::open(Qcow2Image& image, BlockFile& file, const Header& header) {
  // Without the flag somebody has written who does not know bitmaps: they are out of date already.
  if ((header.autoclear & autoclear::bitmaps) == 0) return std::unique_ptr<BitmapKeeper>();
  auto directory = readBitmapDirectory(file, header);
  if (!directory) return std::move(directory).error();
  std::unique_ptr<BitmapKeeper> keeper(new BitmapKeeper(image, file, header.clusterBytes()));
  for (Bitmap& bitmap : directory->bitmaps) {
    // Frozen ones stay as they are; those that were in use when something crashed say so.
    if ((bitmap.flags & bitmap::automatic) == 0 || (bitmap.flags & bitmap::inUse) != 0) continue;
    if (std::string why = bitmap.unsupported(); !why.empty())
      return Error(ErrorKind::unsupported,
                   fmt::format("writing would make the dirty bitmap {} stale: {}", inQuotes(bitmap.name), why))
          .withHint("open it read-only, or write to an overlay");
    if (Status taken = keeper->take(header, std::move(bitmap)); !taken) return std::move(taken).error();
  }
  if (keeper->bitmaps_.empty()) keeper.reset();
  return keeper;
}

Result<std::unique_ptr<BitmapKeeper>> BitmapKeeper::only(Qcow2Image& image, BlockFile& file, const Header& header,
                                                         Bitmap bitmap) {
  std::unique_ptr<BitmapKeeper> keeper(new BitmapKeeper(image, file, header.clusterBytes()));
  if (Status taken = keeper->take(header, std::move(bitmap)); !taken) return std::move(taken).error();
  return keeper;
}

Status BitmapKeeper::take(const Header& header, Bitmap bitmap) {
  auto table = readBitmapTable(file_, header, bitmap);
  if (!table) return std::move(table).error();
  if (std::uint64_t pages = bitmap.pages(header.size, cluster_); pages != bitmap.tableEntries)
    return Error(ErrorKind::corrupt, fmt::format("dirty bitmap {} does not fit the disk: {} pages, not {}",
                                                 inQuotes(bitmap.name), bitmap.tableEntries, pages));
  bitmaps_.push_back({std::move(bitmap), std::move(*table), {}});
  return {};
}

int BitmapKeeper::setInUse(bool inUse) {
  for (Kept& bitmap : bitmaps_) {
    std::uint32_t flags = __builtin_bswap32(inUse ? bitmap.about.flags | bitmap::inUse : bitmap.about.flags);
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
      bitmap.table[index] = bitmap::allOnes;
    } else if (bitmap.table[index] != bitmap::allOnes) {
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
