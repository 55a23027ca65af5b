// SPDX-License-Identifier: Apache-2.0
// What is done with whole images besides copying them: compare, commit, rebase, measure.
#include <algorithm>
#include <bit>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/convert.h"

namespace lodge::image {

namespace {

constexpr std::uint64_t kPiece = 1 << 20;

Error failed(int error, const char* what, std::uint64_t offset) {
  return Error::fromErrno(error, fmt::format("{} at 0x{:x}", what, offset));
}

bool goesOn(const Progress& progress, std::uint64_t done, std::uint64_t total) {
  return !progress || progress(done, total);
}

Error interrupted() {
  return {ErrorKind::interrupted, "interrupted"};
}

/// What an image has at a place; behind its end, zeroes.
int statusOrZero(Image* image, std::uint64_t offset, std::uint64_t length, BlockStatus& status) {
  if (image && offset < image->size())
    return chainStatus(*image, offset, std::min(length, image->size() - offset), status);
  status = {.length = length, .kind = BlockStatus::Kind::zero};
  return 0;
}

int readOrZero(Image* image, std::uint64_t offset, std::vector<std::byte>& bytes) {
  std::uint64_t there =
      image && offset < image->size() ? std::min<std::uint64_t>(bytes.size(), image->size() - offset) : 0;
  std::memset(bytes.data() + there, 0, bytes.size() - there);
  iovec v{bytes.data(), there};
  return there == 0 ? 0 : image->read(offset, {&v, 1});
}

/// What is known of one image from some place on: runs may be long, and cost time to find.
struct Side {
  Image* image;
  BlockStatus::Kind kind = BlockStatus::Kind::data;
  std::uint64_t end = 0;

  int look(std::uint64_t offset, std::uint64_t length) {
    if (offset < end) return 0;
    BlockStatus status;
    if (int error = statusOrZero(image, offset, length, status); error != 0) return error;
    kind = status.kind;
    end = offset + status.length;
    return 0;
  }
};

/// Both places' bytes, up to `length` (made shorter to what is of one kind); `equal` without a look if both are zero.
int readBoth(Side& a, Side& b, std::uint64_t offset, std::uint64_t& length, std::vector<std::byte>& one,
             std::vector<std::byte>& other, bool& bothZero) {
  if (int error = a.look(offset, length); error != 0) return error;
  if (int error = b.look(offset, length); error != 0) return error;
  length = std::min({length, a.end - offset, b.end - offset});
  bothZero = a.kind == BlockStatus::Kind::zero && b.kind == BlockStatus::Kind::zero;
  if (bothZero) return 0;
  length = std::min(length, kPiece);
  one.resize(length);
  other.resize(length);
  if (int error = readOrZero(a.image, offset, one); error != 0) return error;
  return readOrZero(b.image, offset, other);
}

}  // namespace

Result<Difference> compareContent(Image& a, Image& b, bool strict, const Progress& progress) {
  if (strict && a.size() != b.size()) return Difference{false, true, std::min(a.size(), b.size())};
  std::uint64_t total = std::max(a.size(), b.size());
  std::vector<std::byte> one, other;
  Side first{&a}, second{&b};
  for (std::uint64_t at = 0; at < total;) {
    std::uint64_t length = total - at;
    bool zero = false;
    if (int error = readBoth(first, second, at, length, one, other, zero); error != 0) return failed(error, "read", at);
    if (!zero && std::memcmp(one.data(), other.data(), length) != 0) {
      auto place = std::mismatch(one.begin(), one.end(), other.begin()).first - one.begin();
      return Difference{false, false, at + static_cast<std::uint64_t>(place)};
    }
    at += length;
    if (!goesOn(progress, at, total)) return interrupted();
  }
  return Difference{};
}

namespace {

/// The first of the layers that has the range, or that ends before it (which reads as zero).
int findLayer(std::span<const std::unique_ptr<Image>> layers, std::uint64_t offset, std::uint64_t length,
              BlockStatus& status, Image*& owner) {
  for (const auto& layer : layers) {
    owner = layer.get();
    if (offset >= layer->size()) {
      status = {.length = length, .kind = BlockStatus::Kind::zero};
      return 0;
    }
    length = std::min(length, layer->size() - offset);
    if (int error = layer->blockStatus(offset, length, status); error != 0) return error;
    length = status.length;
    if (status.kind != BlockStatus::Kind::unallocated) return 0;
  }
  return 0;
}

}  // namespace

Status commitContent(std::span<const std::unique_ptr<Image>> layers, Image& base, const Progress& progress) {
  std::uint64_t total = layers.front()->size();
  if (base.size() < total) {
    if (Status grown = base.resize(total, Preallocation::off); !grown) return grown;
  }
  std::vector<std::byte> bytes;
  for (std::uint64_t at = 0; at < total;) {
    BlockStatus status;
    Image* owner = nullptr;
    int error = findLayer(layers, at, total - at, status, owner);
    std::uint64_t length = status.length;
    if (error == 0 && status.kind == BlockStatus::Kind::zero) {
      error = base.writeZeroes(at, length, true);
    } else if (error == 0 && status.kind == BlockStatus::Kind::data) {
      length = std::min(length, kPiece);
      bytes.resize(length);
      iovec v{bytes.data(), length};
      error = owner->read(at, {&v, 1});
      if (error == 0) error = base.write(at, {&v, 1});
    }
    if (error != 0) return failed(error, "commit", at);
    at += length;
    if (!goesOn(progress, at, total)) return interrupted();
  }
  if (int error = base.flush(); error != 0) return Error::fromErrno(error, "flush the base");
  return {};
}

Status rebaseContent(Image& image, Image* newBacking, const Progress& progress) {
  std::vector<std::byte> one, other;
  Side before{image.backing()}, after{newBacking};
  for (std::uint64_t at = 0; at < image.size();) {
    BlockStatus status;
    std::uint64_t length = image.size() - at;
    if (int error = image.blockStatus(at, length, status); error != 0) return failed(error, "status", at);
    length = status.length;
    if (status.kind == BlockStatus::Kind::unallocated) {
      bool zero = false;
      if (int error = readBoth(before, after, at, length, one, other, zero); error != 0)
        return failed(error, "read", at);
      if (!zero && std::memcmp(one.data(), other.data(), length) != 0) {
        iovec v{one.data(), length};
        if (int error = image.write(at, {&v, 1}); error != 0) return failed(error, "write", at);
      }
    }
    at += length;
    if (!goesOn(progress, at, image.size())) return interrupted();
  }
  if (int error = image.flush(); error != 0) return Error::fromErrno(error, "flush");
  return {};
}

namespace {

/// What bitmaps take in a qcow2 image whose bits are all in clusters: pages, tables, the directory.
Result<std::uint64_t> bitmapBytes(BitmapStore& store, std::uint64_t bytes, std::uint64_t cluster) {
  auto all = store.list();
  if (!all) return std::move(all).error();
  std::uint64_t sum = 0, directory = 0;
  for (const BitmapInfo& bitmap : *all) {
    if (bitmap.inUse || !bitmap.unsupported.empty()) continue;
    std::uint64_t bits = bytes / bitmap.granularity + (bytes % bitmap.granularity != 0 ? 1 : 0);
    std::uint64_t pages = (bits + cluster * 8 - 1) / (cluster * 8);
    sum += pages * cluster + alignUp(pages * 8, cluster);
    directory += alignUp(24 + bitmap.name.size(), 8);
  }
  return sum + alignUp(directory, cluster);
}

}  // namespace

Status copyBitmaps(Image& from, Image& to, bool skipBroken) {
  BitmapStore *source = from.bitmaps(), *target = to.bitmaps();
  if (!source) return Error(ErrorKind::unsupported, "the source's format has no dirty bitmaps");
  if (!target) return Error(ErrorKind::unsupported, "the target's format has no dirty bitmaps").withHint("use qcow2");
  auto all = source->list();
  if (!all) return std::move(all).error();
  for (const BitmapInfo& bitmap : *all) {
    bool broken = bitmap.inUse || !bitmap.unsupported.empty();
    if (broken && skipBroken) continue;
    if (broken)
      return Error(ErrorKind::corrupt, fmt::format("dirty bitmap {} is inconsistent", inQuotes(bitmap.name)))
          .withHint("leave it out with --skip-broken-bitmaps, or remove it");
    if (Status added = target->add(bitmap.name, bitmap.granularity, false); !added) return added;
    if (Status merged = target->merge(bitmap.name, *source, bitmap.name); !merged) return merged;
  }
  // Recording begins when all are there: it would note what is written here.
  for (const BitmapInfo& bitmap : *all) {
    if (!bitmap.recording || bitmap.inUse || !bitmap.unsupported.empty()) continue;
    if (Status set = target->setRecording(bitmap.name, true); !set) return set;
  }
  return {};
}

Result<Measure> measureImage(const FormatDriver& driver, Image* source, std::uint64_t bytes,
                             const CreateRequest& request, const Progress& progress) {
  if (source) bytes = source->size();
  std::uint64_t data = 0, cluster = 65536;
  if (driver.name == "qcow2") {
    auto size = sizeOption(request, "cluster_size", cluster);
    if (!size) return std::move(size).error();
    cluster = *size;
    if (!std::has_single_bit(cluster) || cluster < 512 || cluster > 2_MiB)
      return Error(ErrorKind::invalidArgument, "option cluster_size").withHint("use a power of two from 512 to 2M");
  }
  std::uint64_t counted = 0;  // clusters below this are in `data`
  for (std::uint64_t at = 0; source && at < bytes;) {
    BlockStatus status;
    if (int error = chainStatus(*source, at, bytes - at, status); error != 0) return failed(error, "status", at);
    if (status.kind == BlockStatus::Kind::data) {
      std::uint64_t from = std::max(counted, at / cluster * cluster), to = alignUp(at + status.length, cluster);
      if (to > from) data += to - from;
      counted = std::max(counted, to);
    }
    at += status.length;
    if (!goesOn(progress, at, bytes)) return interrupted();
  }
  if (driver.name == "raw") return Measure{bytes, bytes};
  std::optional<std::uint64_t> bitmaps;
  if (driver.name == "qcow2" && source && source->bitmaps() && request.option("compat") != "0.10") {
    auto size = bitmapBytes(*source->bitmaps(), bytes, cluster);
    if (!size) return std::move(size).error();
    bitmaps = *size;
  }
  auto withTables = [&](std::uint64_t content) {
    // Header, L1 and L2 tables, and the refcounts of everything, themselves too.
    bool extended = request.option("extended_l2") == "on";
    std::uint64_t bits = parseNumber(request.option("refcount_bits", "16")).value_or(16), entry = extended ? 16 : 8;
    std::uint64_t perTable = cluster / entry, clusters = (bytes + cluster - 1) / cluster;
    std::uint64_t tables = (clusters + perTable - 1) / perTable, l1 = (tables * 8 + cluster - 1) / cluster;
    std::uint64_t used = 1 + l1 + tables + content / cluster, blocks = 0, table = 0;
    for (std::uint64_t before = ~0ull; before != blocks + table;) {
      before = blocks + table;
      blocks = ((used + blocks + table) * bits + cluster * 8 - 1) / (cluster * 8);
      table = (blocks * 8 + cluster - 1) / cluster;
    }
    return (used + blocks + table) * cluster;
  };
  std::string preallocation = request.option("preallocation", "off");
  if (preallocation == "falloc" || preallocation == "full") data = alignUp(bytes, cluster);
  return Measure{withTables(data), withTables(alignUp(bytes, cluster)), bitmaps};
}

}  // namespace lodge::image
