// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_bitmap_store.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/text.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

namespace {

Status done(int error, const std::string& what) {
  return error == 0 ? Status() : Status(Error::fromErrno(error, what));
}

}  // namespace

std::uint64_t Qcow2BitmapStore::diskBytes() const {
  return image_.size();
}

Result<BitmapDirectory> Qcow2BitmapStore::read() const {
  // Without the flag somebody has written who does not know bitmaps: they are out of date.
  if ((image_.header_.autoclear & autoclear::bitmaps) == 0) return BitmapDirectory();
  return readBitmapDirectory(*image_.file_, image_.header_);
}

/// Without the marks of use that are this image's own.
Result<BitmapDirectory> Qcow2BitmapStore::readStored() const {
  if (int error = image_.bitmaps_ ? image_.bitmaps_->store() : 0; error != 0)
    return Error::fromErrno(error, "store the bitmaps");
  return read();
}

Result<std::vector<BitmapInfo>> Qcow2BitmapStore::list() {
  auto directory = read();
  if (!directory) return std::move(directory).error();
  std::vector<BitmapInfo> all;
  for (const Bitmap& bitmap : directory->bitmaps) {
    all.push_back({.name = bitmap.name,
                   .granularity = bitmap.granularityBits < 64 ? std::uint64_t{1} << bitmap.granularityBits : 0,
                   .recording = (bitmap.flags & bitmap::automatic) != 0,
                   .inUse = (bitmap.flags & bitmap::inUse) != 0,
                   .unsupported = bitmap.unsupported()});
  }
  return all;
}

Result<Qcow2BitmapStore::Found> Qcow2BitmapStore::find(const std::string& name, bool usable) const {
  auto directory = readStored();
  if (!directory) return std::move(directory).error();
  auto it = std::ranges::find(directory->bitmaps, name, &Bitmap::name);
  std::string what = "dirty bitmap " + inQuotes(name);
  if (it == directory->bitmaps.end()) return Error(ErrorKind::notFound, "there is no " + what);
  if (std::string why = it->unsupported(); usable && !why.empty())
    return Error(ErrorKind::unsupported, what + ": " + why);
  if (usable && (it->flags & bitmap::inUse) != 0)
    return Error(ErrorKind::corrupt, what + " is inconsistent: what wrote the image last did not end well")
        .withHint("remove it, and begin a new one with a full backup");
  auto index = static_cast<std::size_t>(it - directory->bitmaps.begin());
  return Found{std::move(*directory), index};
}

Status Qcow2BitmapStore::begin(const std::string& what) {
  if (image_.readOnly_) return Error(ErrorKind::permissionDenied, what + ": the image is open read-only");
  int error = image_.bitmaps_ ? image_.bitmaps_->store() : 0;
  image_.bitmaps_.reset();
  return done(error == 0 ? image_.flushAll() : error, what);
}

Status Qcow2BitmapStore::end() {
  if (int error = image_.flushAll(); error != 0) return done(error, "write the bitmaps");
  auto keeper = BitmapKeeper::open(image_, *image_.file_, image_.header_);
  if (!keeper) return std::move(keeper).error();
  image_.bitmaps_ = std::move(*keeper);
  return {};
}

int Qcow2BitmapStore::setFlags(const Bitmap& bitmap, std::uint32_t flags) {
  std::uint32_t stored = __builtin_bswap32(flags);
  if (int error = image_.file_->write(bitmap.flagsOffset, &stored, sizeof stored); error != 0) return error;
  return image_.file_->flush();
}

int Qcow2BitmapStore::newTable(Bitmap& bitmap, std::vector<std::uint64_t> table) {
  bitmap.tableEntries = static_cast<std::uint32_t>(table.size());
  bitmap.tableOffset = 0;
  if (table.empty()) return 0;
  std::unique_lock lock(image_.mutex_);
  std::uint64_t clusters = image_.clusterUp(table.size() * 8) / image_.cluster();
  if (int error = image_.allocateRow(clusters, bitmap.tableOffset); error != 0) return error;
  return image_.writeTable(bitmap.tableOffset, table);
}

Status Qcow2BitmapStore::store(const BitmapDirectory& old, std::vector<Bitmap> bitmaps,
                               const std::vector<Place>& freed) {
  std::vector<std::byte> packed = packBitmaps(bitmaps);
  std::uint64_t host = 0, bytes = packed.size();
  packed.resize(image_.clusterUp(bytes));
  if (!packed.empty()) {
    std::unique_lock lock(image_.mutex_);
    int error = image_.allocateRow(packed.size() / image_.cluster(), host);
    if (error == 0) error = image_.file_->write(host, packed.data(), packed.size());
    if (error != 0) return done(error, "write the bitmap directory");
  }
  // Counted and written before the header leads there.
  if (int error = image_.flushMetadata(); error != 0) return done(error, "write the bitmap directory");
  Header before = image_.header_;
  auto count = static_cast<std::uint32_t>(bitmaps.size());
  image_.header_.setExtension(extension::bitmaps, count == 0 ? "" : packBitmapsExtension(count, bytes, host));
  image_.header_.autoclear &= ~autoclear::bitmaps;
  if (count != 0) image_.header_.autoclear |= autoclear::bitmaps;
  if (Status stored = image_.storeHeader(); !stored) {
    image_.header_ = std::move(before);
    std::unique_lock lock(image_.mutex_);
    image_.freeLater(host, packed.size());
    return stored;
  }
  if (int error = image_.file_->flush(); error != 0) return done(error, "write the header");
  std::unique_lock lock(image_.mutex_);
  if (old.bytes != 0) image_.freeLater(old.offset, image_.clusterUp(old.bytes));
  for (const Place& place : freed) image_.freeLater(place.offset, image_.clusterUp(place.bytes));
  return {};
}

Status Qcow2BitmapStore::add(const std::string& name, std::uint64_t granularity, bool recording) {
  std::string what = "add dirty bitmap " + inQuotes(name);
  std::uint64_t cluster = image_.cluster();
  if (granularity == 0) granularity = std::clamp<std::uint64_t>(cluster, 4 << 10, 64 << 10);
  if (name.empty() || name.size() > kMaxName)
    return Error(ErrorKind::invalidArgument, what + ": its name is to have 1 to 1023 bytes");
  if (!std::has_single_bit(granularity) || granularity < kMinGranularity || granularity > kMaxGranularity)
    return Error(ErrorKind::invalidArgument, what + fmt::format(": granularity {}", granularity))
        .withHint("use a power of two from 512 to 2G");
  if (image_.header_.version < 3)
    return Error(ErrorKind::unsupported, what + ": version 2 images have none").withHint("use compat=1.1");
  auto directory = readStored();
  if (!directory) return std::move(directory).error();
  std::vector<Bitmap> all = directory->bitmaps;
  if (std::ranges::count(all, name, &Bitmap::name) != 0)
    return Error(ErrorKind::alreadyExists, what + ": there is one of that name");
  if (all.size() >= kMaxBitmaps) return Error(ErrorKind::unsupported, what + ": there are too many");
  Bitmap fresh{.name = name,
               .tableOffset = 0,
               .tableEntries = 0,
               .flags = recording ? bitmap::automatic : 0,
               .granularityBits = static_cast<std::uint32_t>(std::countr_zero(granularity)),
               .type = bitmap::dirtyTracking,
               .extra = {},
               .flagsOffset = 0};
  std::uint64_t pages = fresh.pages(image_.size(), cluster);
  if (pages * 8 > kMaxL1Bytes)
    return Error(ErrorKind::invalidArgument, what + ": its table would be too large").withHint("take a coarser one");
  if (Status begun = begin(what); !begun) return begun;
  Status result = done(newTable(fresh, std::vector<std::uint64_t>(pages)), what);
  all.push_back(std::move(fresh));
  if (result) result = store(*directory, std::move(all), {});
  Status ended = end();
  return result ? std::move(ended) : std::move(std::move(result).error().context(what));
}

Status Qcow2BitmapStore::remove(const std::string& name) {
  std::string what = "remove dirty bitmap " + inQuotes(name);
  auto found = find(name, false);
  if (!found) return std::move(found).error();
  if (Status begun = begin(what); !begun) return begun;
  const Bitmap& gone = found->bitmap();
  std::vector<Place> freed;
  // A table that cannot be leaks: freeing by it would do harm.
  if (auto table = readBitmapTable(*image_.file_, image_.header_, gone); table && gone.tableEntries != 0) {
    freed.push_back({gone.tableOffset, std::uint64_t{gone.tableEntries} * 8});
    for (std::uint64_t word : *table) {
      std::uint64_t host = word & entry::offsetMask;
      if (host != 0 && !image_.hitsMetadata(host, image_.cluster())) freed.push_back({host, image_.cluster()});
    }
  }
  std::vector<Bitmap> rest = found->directory.bitmaps;
  rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(found->index));
  Status stored = store(found->directory, std::move(rest), freed);
  Status ended = end();
  return stored ? std::move(ended) : std::move(stored);
}

Status Qcow2BitmapStore::clear(const std::string& name) {
  std::string what = "clear dirty bitmap " + inQuotes(name);
  auto found = find(name, true);
  if (!found) return std::move(found).error();
  const Bitmap& bitmap = found->bitmap();
  auto table = readBitmapTable(*image_.file_, image_.header_, bitmap);
  if (!table) return std::move(table).error();
  if (Status begun = begin(what); !begun) return begun;
  int error = setFlags(bitmap, bitmap.flags | bitmap::inUse);
  if (error == 0 && !table->empty())
    error = image_.writeTable(bitmap.tableOffset, std::vector<std::uint64_t>(table->size()));
  if (error == 0) error = image_.file_->flush();
  if (error == 0) error = setFlags(bitmap, bitmap.flags);
  if (error != 0) return done(error, what);
  {
    std::unique_lock lock(image_.mutex_);
    for (std::uint64_t word : *table) {
      std::uint64_t host = word & entry::offsetMask;
      if (host != 0 && !image_.hitsMetadata(host, image_.cluster())) image_.freeLater(host, image_.cluster());
    }
  }
  return end();
}

Status Qcow2BitmapStore::setRecording(const std::string& name, bool recording) {
  std::string what = (recording ? "enable dirty bitmap " : "disable dirty bitmap ") + inQuotes(name);
  auto found = find(name, true);
  if (!found) return std::move(found).error();
  if (Status begun = begin(what); !begun) return begun;
  std::uint32_t flags = found->bitmap().flags & ~bitmap::automatic;
  if (Status set = done(setFlags(found->bitmap(), recording ? flags | bitmap::automatic : flags), what); !set)
    return set;
  return end();
}

Status Qcow2BitmapStore::forEachDirty(const std::string& name, const Tell& tell) {
  auto found = find(name, true);
  if (!found) return std::move(found).error();
  const Bitmap& bitmap = found->bitmap();
  auto table = readBitmapTable(*image_.file_, image_.header_, bitmap);
  if (!table) return std::move(table).error();
  if (table->size() != bitmap.pages(image_.size(), image_.cluster()))
    return Error(ErrorKind::corrupt, fmt::format("dirty bitmap {} does not fit the disk", inQuotes(name)));
  std::uint64_t cluster = image_.cluster(), perPage = cluster * 8, begin = 0, length = 0;
  std::vector<std::uint8_t> page(cluster);
  auto note = [&](std::uint64_t bit, std::uint64_t bits) {
    std::uint64_t at = bit << bitmap.granularityBits, size = image_.size();
    if (at >= size) return true;
    bits = std::min(bits << bitmap.granularityBits, size - at);
    bool goesOn = begin + length == at || length == 0 || tell(begin, length);
    if (begin + length != at || length == 0) begin = at, length = 0;
    length += bits;
    return goesOn;
  };
  for (std::size_t i = 0; i < table->size(); ++i) {
    std::uint64_t host = (*table)[i] & entry::offsetMask;
    if (host == 0) {
      if ((*table)[i] == bitmap::allOnes && !note(i * perPage, perPage)) return {};
      continue;
    }
    if (int error = image_.file_->read(host, page.data(), page.size()); error != 0)
      return done(error, "read dirty bitmap " + inQuotes(name));
    for (std::size_t byte = 0; byte < page.size(); ++byte) {
      if (page[byte] == 0) continue;
      for (unsigned bit = 0; bit < 8; ++bit) {
        if ((page[byte] >> bit & 1) != 0 && !note(i * perPage + byte * 8 + bit, 1)) return {};
      }
    }
  }
  if (length != 0) tell(begin, length);
  return {};
}

Status Qcow2BitmapStore::merge(const std::string& name, BitmapStore& from, const std::string& other) {
  std::string what = fmt::format("merge dirty bitmap {} into {}", inQuotes(other), inQuotes(name));
  auto found = find(name, true);
  if (!found) return std::move(found).error();
  if (from.diskBytes() != image_.size())
    return Error(ErrorKind::invalidArgument, what + ": they are about disks of unequal size");
  if (Status begun = begin(what); !begun) return begun;
  auto keeper = BitmapKeeper::only(image_, *image_.file_, image_.header_, found->bitmap());
  int error = 0;
  Status read;
  if (!keeper) {
    read = std::move(keeper).error();
  } else {
    read = from.forEachDirty(other, [&](std::uint64_t offset, std::uint64_t length) {
      error = (*keeper)->mark(offset, length);
      return error == 0;
    });
    if (int stored = (*keeper)->store(); error == 0) error = stored;
  }
  Status ended = end();
  if (!read) return std::move(read).error().context(what);
  return error != 0 ? done(error, what) : std::move(ended);
}

Status Qcow2BitmapStore::beginResize() {
  resizing_.clear();
  auto directory = readStored();
  if (!directory) return std::move(directory).error();
  if (directory->bitmaps.empty()) return {};
  for (const Bitmap& bitmap : directory->bitmaps) {
    if (std::string why = bitmap.unsupported(); !why.empty())
      return Error(ErrorKind::unsupported, fmt::format("dirty bitmap {}: {}", inQuotes(bitmap.name), why))
          .withHint("remove it: lodge image bitmap --remove FILE NAME");
    if ((bitmap.flags & bitmap::inUse) != 0) continue;
    auto table = readBitmapTable(*image_.file_, image_.header_, bitmap);
    if (!table) return std::move(table).error();
    resizing_.push_back(bitmap.name);
  }
  if (Status begun = begin("resize the bitmaps"); !begun) return begun;
  for (const Bitmap& bitmap : directory->bitmaps) {
    if (std::ranges::count(resizing_, bitmap.name) == 0) continue;
    if (int error = setFlags(bitmap, bitmap.flags | bitmap::inUse); error != 0) return done(error, "mark the bitmaps");
  }
  return {};
}

/// The page where the shorter disk ends: no bits beyond, and if there will be more behind it, none of them set.
int Qcow2BitmapStore::cutPage(std::vector<std::uint64_t>& table, std::uint64_t index, std::uint64_t bits, bool grows) {
  std::uint64_t cluster = image_.cluster(), host = table[index] & entry::offsetMask;
  bool ones = table[index] == bitmap::allOnes;
  if (bits == cluster * 8 || (host == 0 && !(ones && grows))) return 0;
  std::vector<std::uint8_t> page(cluster, 0xff);
  if (int error = host == 0 ? 0 : image_.file_->read(host, page.data(), cluster); error != 0) return error;
  if (bits % 8 != 0) page[bits / 8] &= static_cast<std::uint8_t>((1u << bits % 8) - 1);
  std::fill(page.begin() + static_cast<std::ptrdiff_t>((bits + 7) / 8), page.end(), 0);
  if (host == 0) {
    if (int error = image_.allocateOne(host); error != 0) return error;
    table[index] = host;
  }
  return image_.file_->write(host, page.data(), cluster);
}

Status Qcow2BitmapStore::resized(Bitmap& bitmap, std::uint64_t oldBytes, std::vector<Place>& freed) {
  auto table = readBitmapTable(*image_.file_, image_.header_, bitmap);
  if (!table) return std::move(table).error();
  std::uint64_t cluster = image_.cluster(), pages = bitmap.pages(image_.size(), cluster);
  std::string what = "resize dirty bitmap " + inQuotes(bitmap.name);
  if (pages * 8 > kMaxL1Bytes) return Error(ErrorKind::unsupported, what + ": its table would be too large");
  if (!table->empty()) freed.push_back({bitmap.tableOffset, table->size() * 8});
  for (std::uint64_t i = pages; i < table->size(); ++i) {
    if (std::uint64_t host = (*table)[i] & entry::offsetMask; host != 0 && !image_.hitsMetadata(host, cluster))
      freed.push_back({host, cluster});
  }
  std::uint64_t shorter = std::min(oldBytes, image_.size()), unit = std::uint64_t{1} << bitmap.granularityBits;
  std::uint64_t bits = shorter / unit + (shorter % unit != 0 ? 1 : 0),
                last = bits == 0 ? 0 : (bits - 1) / (cluster * 8);
  bool grows = image_.size() > oldBytes;
  table->resize(pages);
  int error = bits == 0 || last >= pages ? 0 : cutPage(*table, last, bits - last * cluster * 8, grows);
  if (error == 0) error = newTable(bitmap, std::move(*table));
  return done(error, what);
}

Status Qcow2BitmapStore::endResize(std::uint64_t oldBytes) {
  if (resizing_.empty()) return {};
  auto directory = read();
  if (!directory) return std::move(directory).error();
  std::vector<Bitmap> all = directory->bitmaps;
  std::vector<Place> freed;
  for (Bitmap& bitmap : all) {
    if (std::ranges::count(resizing_, bitmap.name) == 0) continue;
    if (Status ready = resized(bitmap, oldBytes, freed); !ready) return ready;
    bitmap.flags &= ~bitmap::inUse;
  }
  resizing_.clear();
  if (Status stored = store(*directory, std::move(all), freed); !stored) return stored;
  return end();
}

}  // namespace lodge::image::qcow2
