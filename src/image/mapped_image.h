// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image/image.h"
#include "image/table_cache.h"

namespace lodge::image {

/// What a range of a mapped image leads to.
struct Mapping {
  enum class Kind : std::uint8_t { unallocated, zero, data, compressed };
  Kind kind = Kind::unallocated;
  std::uint64_t length = 0;  ///< bytes from the offset asked for that this holds for, at least 1
  std::uint64_t host = 0;    ///< data: offset in the file, contiguous; compressed: the driver's own
};

/// An image whose virtual disk is cut into blocks that tables map into one file: the part that VMDK's sparse extents,
/// VDI, VHD and VHDX have in common. Reads and writes go to the file directly, in runs as long as the map allows.
///
/// Order that keeps the file good after a power loss: storage for new blocks is always taken behind what the file had
/// when it was opened, and never given back while it is open; the tables' changes stay in memory until flush(), which
/// brings the data to the disk first, then writes the tables, then flushes again. So a table never points to data that
/// is not there, and what a crash loses are blocks that nobody points to. Discarded blocks become holes in the file and
/// stay mapped.
///
/// The driver's calls (map, reserve, publish) run under the lock; it keeps its state in members and in tables_.
class MappedImage : public Image {
 public:
  std::uint64_t size() const override { return virtualBytes_; }
  bool readOnly() const override { return readOnly_; }
  Image* backing() const override { return backing_.get(); }

  int read(std::uint64_t offset, std::span<const iovec> to) override;
  int write(std::uint64_t offset, std::span<const iovec> from) override;
  int flush() override;
  int discard(std::uint64_t offset, std::uint64_t length) override;
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override;
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override;
  int tryRead(std::uint64_t offset, std::span<const iovec> to) override;
  int tryWrite(std::uint64_t offset, std::span<const iovec> from) override;

 protected:
  struct Shape {
    std::uint64_t virtualBytes = 0;
    std::uint64_t blockBytes = 0;      ///< unit of allocation
    std::uint64_t fillBytes = 0;       ///< unit of publish(): what a smaller write must complete
    std::size_t cacheBytes = 8 << 20;  ///< of tables
  };
  MappedImage(std::shared_ptr<BlockFile> file, bool readOnly);
  /// Called once by open(), before the image is used.
  void setShape(const Shape& shape);
  void setBacking(std::unique_ptr<Image> backing) { backing_ = std::move(backing); }

  /// What begins at `offset`; `length` is a hint how much is wanted (the answer may cover less, never more).
  virtual int map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) = 0;
  /// Storage for the unallocated or zero range at `offset`: sets `host` and shortens `length` to what lies in one
  /// piece. The range begins and ends on fillBytes or at the disk's end. What is not written must read as zero.
  virtual int reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) = 0;
  /// The range's data are in the file at `host`: map it there.
  virtual int publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) = 0;
  /// Makes the unallocated range (fillBytes-aligned) read as zero without storage; may shorten `length`. ENOTSUP:
  /// zeroes must be written.
  virtual int publishZero(std::uint64_t, std::uint64_t&) { return 95 /* ENOTSUP */; }
  /// Decodes a run of Kind::compressed. `within`: bytes to skip of what `mapping` began with.
  virtual int readCompressed(const Mapping&, std::uint64_t, std::span<const iovec>) { return 5 /* EIO */; }
  /// Before the first write since open() or beginAgain(): mark the image as in use. Under the lock.
  virtual int beginWriting() { return 0; }
  /// Brings changed tables to the file; data are on the disk already. Not under the lock.
  virtual int writeTables(const std::vector<TableCache::Copy>& copies) { return writeCopies(*file_, copies); }
  /// What shall be written besides the tables at each flush that has any. Under the lock.
  virtual void addState(std::vector<TableCache::Copy>&) {}
  /// What unallocated ranges read as: the backing image, or zero.
  virtual int readUnallocated(std::uint64_t offset, std::span<const iovec> to);
  virtual bool hasBacking() const { return backing_ != nullptr; }

  /// map() for formats with one table entry a block: `one(block, mapping)` sets the kind, and host of the block's
  /// start. Joins blocks that continue each other.
  template <class One>
  int mapBlocks(std::uint64_t offset, std::uint64_t length, Mapping& mapping, One one);

  /// The next `bytes` at the end of the file, aligned.
  std::uint64_t takeSpace(std::uint64_t bytes, std::uint64_t alignment);
  /// beginWriting() if it was not called yet. Under the lock.
  int begin();
  /// The next write is the first one again: beginWriting() before it. Under the lock.
  void beginAgain() { begun_ = false; }
  /// EIO and a line in the log, once.
  int corrupt(const std::string& what);
  /// flush() for destructors: errors go to the log.
  void close();
  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }

  std::shared_ptr<BlockFile> file_;
  std::unique_ptr<TableCache> tables_;
  Shape shape_;
  std::uint64_t virtualBytes_ = 0;
  std::uint64_t end_ = 0;  ///< where the next allocation goes, at least

 private:
  struct Range {
    std::uint64_t from, to;
  };
  int writePart(std::uint64_t offset, std::uint64_t length, class IoCursor& from, std::uint64_t& done);
  int allocate(std::uint64_t offset, std::uint64_t length, class IoCursor& from, std::uint64_t& done,
               std::unique_lock<std::mutex>& held);
  int fillAndWrite(Range units, Range wanted, std::uint64_t host, class IoCursor& from);
  int zeroPart(std::uint64_t offset, std::uint64_t length, bool mayUnmap, std::uint64_t& done);
  bool isBusy(Range range) const;
  void release(Range range);

  std::unique_ptr<Image> backing_;
  bool readOnly_;
  std::mutex mutex_, flushing_;
  std::condition_variable released_;
  std::vector<Range> busy_;  ///< blocks that a writer is allocating
  bool begun_ = false, told_ = false;
};

template <class One>
int MappedImage::mapBlocks(std::uint64_t offset, std::uint64_t length, Mapping& mapping, One one) {
  constexpr std::uint64_t kMostBlocks = 1 << 18;  // bounds the time under the lock
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  length = std::min(length, virtualBytes_ - offset);
  if (int error = one(block, mapping); error != 0) return error;
  mapping.host += within;
  mapping.length = shape_.blockBytes - within;
  if (mapping.kind != Mapping::Kind::compressed) {
    for (std::uint64_t n = 1; mapping.length < length && n < kMostBlocks; ++n) {
      Mapping next;
      if (int error = one(block + n, next); error != 0) return error;
      if (next.kind != mapping.kind) break;
      if (next.kind == Mapping::Kind::data && next.host != mapping.host + mapping.length) break;
      mapping.length += shape_.blockBytes;
    }
  }
  mapping.length = std::min(mapping.length, length);
  return 0;
}

}  // namespace lodge::image
