// SPDX-License-Identifier: Apache-2.0
#include "image/mapped_image.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "image/io_vector.h"

namespace lodge::image {

namespace {

/// Changed tables are written when they are this many, even without a flush.
constexpr std::size_t kMostDirty = 4_MiB;

}  // namespace

MappedImage::MappedImage(std::shared_ptr<BlockFile> file, bool readOnly)
    : file_(std::move(file)), readOnly_(readOnly) {}

void MappedImage::setShape(const Shape& shape) {
  shape_ = shape;
  virtualBytes_ = shape.virtualBytes;
  tables_ = std::make_unique<TableCache>(file_, shape.cacheBytes);
  end_ = std::max(end_, file_->size());
}

int MappedImage::corrupt(const std::string& what) {
  if (!std::exchange(told_, true)) log(LogLevel::error, "image {}: corrupt: {}", inQuotes(file_->name()), what);
  return EIO;
}

std::uint64_t MappedImage::takeSpace(std::uint64_t bytes, std::uint64_t alignment) {
  std::uint64_t at = (end_ + alignment - 1) / alignment * alignment;
  end_ = at + bytes;
  return at;
}

int MappedImage::readUnallocated(std::uint64_t offset, std::span<const iovec> to) {
  std::uint64_t wanted = bytesIn(to);
  std::uint64_t there = backing_ && offset < backing_->size() ? std::min(wanted, backing_->size() - offset) : 0;
  IoCursor cursor(to);
  if (there != 0) {
    if (int error = backing_->read(offset, cursor.take(there)); error != 0) return error;
  }
  fillZero(cursor.take(wanted - there));
  return 0;
}

int MappedImage::read(std::uint64_t offset, std::span<const iovec> to) {
  std::uint64_t left = bytesIn(to);
  if (offset > virtualBytes_ || left > virtualBytes_ - offset) return EINVAL;
  IoCursor cursor(to);
  while (left != 0) {
    Mapping mapping;
    {
      std::lock_guard held(mutex_);
      if (int error = map(offset, left, mapping); error != 0) return error;
    }
    std::uint64_t part = std::min(left, mapping.length);
    std::span<const iovec> piece = cursor.take(part);
    int error = 0;
    switch (mapping.kind) {
      case Mapping::Kind::data:
        error = file_->readv(mapping.host, piece);
        break;
      case Mapping::Kind::zero:
        fillZero(piece);
        break;
      case Mapping::Kind::unallocated:
        error = readUnallocated(offset, piece);
        break;
      case Mapping::Kind::compressed:
        error = readCompressed(mapping, offset, piece);
        break;
    }
    if (error != 0) return error;
    offset += part;
    left -= part;
  }
  return 0;
}

int MappedImage::tryRead(std::uint64_t offset, std::span<const iovec> to) {
  std::uint64_t wanted = bytesIn(to);
  if (offset > virtualBytes_ || wanted > virtualBytes_ - offset) return EINVAL;
  Mapping mapping;
  {
    std::unique_lock held(mutex_, std::try_to_lock);
    if (!held) return EAGAIN;
    if (int error = map(offset, wanted, mapping); error != 0) return error;
  }
  if (mapping.length < wanted) return EAGAIN;
  if (mapping.kind == Mapping::Kind::data) return file_->tryReadv(mapping.host, to);
  if (mapping.kind == Mapping::Kind::compressed) return EAGAIN;
  if (mapping.kind == Mapping::Kind::unallocated && hasBacking()) return EAGAIN;
  fillZero(to);
  return 0;
}

int MappedImage::tryWrite(std::uint64_t offset, std::span<const iovec> from) {
  std::uint64_t wanted = bytesIn(from);
  if (readOnly_ || offset > virtualBytes_ || wanted > virtualBytes_ - offset) return EAGAIN;
  Mapping mapping;
  {
    std::unique_lock held(mutex_, std::try_to_lock);
    if (!held || !begun_) return EAGAIN;
    if (int error = map(offset, wanted, mapping); error != 0) return error;
  }
  if (mapping.length < wanted || mapping.kind != Mapping::Kind::data) return EAGAIN;
  return file_->tryWritev(mapping.host, from);
}

int MappedImage::blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) {
  if (offset >= virtualBytes_ || length == 0) return EINVAL;
  length = std::min(length, virtualBytes_ - offset);
  Mapping mapping;
  {
    std::lock_guard held(mutex_);
    if (int error = map(offset, length, mapping); error != 0) return error;
  }
  status = {};
  status.length = std::min(length, mapping.length);
  switch (mapping.kind) {
    case Mapping::Kind::unallocated:
      status.kind = BlockStatus::Kind::unallocated;
      break;
    case Mapping::Kind::zero:
      status.kind = BlockStatus::Kind::zero;
      break;
    case Mapping::Kind::compressed:
      status.compressed = true;
      break;
    case Mapping::Kind::data: {
      // Holes in the file are worth knowing: a discarded block stays mapped.
      std::uint64_t there = file_->size() > mapping.host ? file_->size() - mapping.host : 0;
      if (there == 0) {
        status.kind = BlockStatus::Kind::zero;
        break;
      }
      BlockFile::Extent extent = file_->extent(mapping.host, std::min(status.length, there));
      status.length = std::min(status.length, extent.length);
      status.hostOffset = mapping.host;
      status.file = file_.get();
      status.hole = extent.hole;
      if (extent.hole) status.kind = BlockStatus::Kind::zero;
      break;
    }
  }
  return 0;
}

int MappedImage::begin() {
  if (begun_) return 0;
  if (int error = beginWriting(); error != 0) return error;
  begun_ = true;
  return 0;
}

bool MappedImage::isBusy(Range range) const {
  return std::any_of(busy_.begin(), busy_.end(),
                     [&](const Range& other) { return other.from < range.to && range.from < other.to; });
}

void MappedImage::release(Range range) {
  busy_.erase(std::find_if(busy_.begin(), busy_.end(), [&](const Range& other) { return other.from == range.from; }));
  released_.notify_all();
}

int MappedImage::write(std::uint64_t offset, std::span<const iovec> from) {
  std::uint64_t left = bytesIn(from);
  if (readOnly_) return EROFS;
  if (offset > virtualBytes_ || left > virtualBytes_ - offset) return EINVAL;
  IoCursor cursor(from);
  while (left != 0) {
    std::uint64_t done = 0;
    if (int error = writePart(offset, left, cursor, done); error != 0) return error;
    offset += done;
    left -= done;
  }
  bool many = false;
  {
    std::lock_guard held(mutex_);
    many = tables_->dirtyBytes() > kMostDirty;
  }
  return many ? flush() : 0;
}

int MappedImage::writePart(std::uint64_t offset, std::uint64_t length, IoCursor& from, std::uint64_t& done) {
  std::unique_lock held(mutex_);
  if (int error = begin(); error != 0) return error;
  Mapping mapping;
  if (int error = map(offset, length, mapping); error != 0) return error;
  if (mapping.kind == Mapping::Kind::compressed) return ENOTSUP;
  done = std::min(length, mapping.length);
  if (mapping.kind == Mapping::Kind::data) {
    held.unlock();
    return file_->writev(mapping.host, from.take(done));
  }
  return allocate(offset, done, from, done, held);
}

int MappedImage::allocate(std::uint64_t offset, std::uint64_t length, IoCursor& from, std::uint64_t& done,
                          std::unique_lock<std::mutex>& held) {
  auto blocksOf = [&](std::uint64_t start, std::uint64_t bytes) {
    return Range{start / shape_.blockBytes, (start + bytes - 1) / shape_.blockBytes + 1};
  };
  if (isBusy(blocksOf(offset, length))) {
    released_.wait(held, [&] { return !isBusy(blocksOf(offset, length)); });
    done = 0;  // the map has changed: look again
    return 0;
  }
  // Small writes complete their units, so that the map can say yes or no to each.
  Range units{offset / shape_.fillBytes * shape_.fillBytes,
              std::min(virtualBytes_, (offset + length + shape_.fillBytes - 1) / shape_.fillBytes * shape_.fillBytes)};
  std::uint64_t reserved = units.to - units.from, host = 0;
  if (int error = reserve(units.from, reserved, host); error != 0) return error;
  units.to = units.from + reserved;
  done = std::min(length, units.to - offset);
  Range blocks = blocksOf(units.from, reserved);
  busy_.push_back(blocks);
  held.unlock();
  int error = fillAndWrite(units, {offset, offset + done}, host, from);
  held.lock();
  if (error == 0) error = publish(units.from, reserved, host);
  release(blocks);
  return error;
}

int MappedImage::fillAndWrite(Range units, Range wanted, std::uint64_t host, IoCursor& from) {
  std::vector<std::byte> head, tail;
  std::vector<iovec> vectors;
  std::uint64_t start = host + (wanted.from - units.from);
  if (hasBacking()) {
    auto fill = [&](std::vector<std::byte>& to, std::uint64_t at, std::uint64_t bytes) {
      to.resize(bytes);
      iovec v{to.data(), bytes};
      return bytes == 0 ? 0 : read(at, {&v, 1});
    };
    if (int error = fill(head, units.from, wanted.from - units.from); error != 0) return error;
    if (int error = fill(tail, wanted.to, units.to - wanted.to); error != 0) return error;
    if (!head.empty()) vectors.push_back({head.data(), head.size()});
    start = host;
  }
  from.append(wanted.to - wanted.from, vectors);
  if (!tail.empty()) vectors.push_back({tail.data(), tail.size()});
  return file_->writev(start, vectors);
}

int MappedImage::discard(std::uint64_t offset, std::uint64_t length) {
  if (readOnly_) return EROFS;
  if (offset > virtualBytes_ || length > virtualBytes_ - offset) return EINVAL;
  while (length != 0) {
    Mapping mapping;
    {
      std::lock_guard held(mutex_);
      if (int error = begin(); error != 0) return error;
      if (int error = map(offset, length, mapping); error != 0) return error;
    }
    std::uint64_t part = std::min(length, mapping.length);
    if (mapping.kind == Mapping::Kind::data) {
      if (int error = file_->discard(mapping.host, part); error != 0) return error;
    }
    offset += part;
    length -= part;
  }
  return 0;
}

int MappedImage::writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) {
  if (readOnly_) return EROFS;
  if (offset > virtualBytes_ || length > virtualBytes_ - offset) return EINVAL;
  while (length != 0) {
    std::uint64_t done = 0;
    if (int error = zeroPart(offset, length, mayUnmap, done); error != 0) return error;
    offset += done;
    length -= done;
  }
  return 0;
}

int MappedImage::zeroPart(std::uint64_t offset, std::uint64_t length, bool mayUnmap, std::uint64_t& done) {
  std::unique_lock held(mutex_);
  if (int error = begin(); error != 0) return error;
  Mapping mapping;
  if (int error = map(offset, length, mapping); error != 0) return error;
  done = std::min(length, mapping.length);
  if (mapping.kind == Mapping::Kind::compressed) return ENOTSUP;
  if (mapping.kind == Mapping::Kind::data) {
    held.unlock();
    return file_->writeZeroes(mapping.host, done, mayUnmap);
  }
  bool reads0 = mapping.kind == Mapping::Kind::zero || !hasBacking();
  if (reads0 && mayUnmap) return 0;
  std::uint64_t unit = shape_.fillBytes;
  bool whole = offset % unit == 0 && (done >= unit || offset + done == virtualBytes_);
  if (!reads0 && whole && !isBusy({offset / shape_.blockBytes, (offset + done - 1) / shape_.blockBytes + 1})) {
    std::uint64_t covered = offset + done == virtualBytes_ ? done : done / unit * unit;
    int error = publishZero(offset, covered);
    if (error != ENOTSUP) {
      done = covered;
      return error;
    }
  }
  // Zeroes that need storage: written like any data.
  static const std::vector<std::byte> zeroes(65536);
  std::vector<iovec> vectors;
  done = std::min<std::uint64_t>(done, 16_MiB);
  for (std::uint64_t at = 0; at < done; at += zeroes.size()) {
    vectors.push_back({const_cast<std::byte*>(zeroes.data()), std::min<std::uint64_t>(zeroes.size(), done - at)});
  }
  IoCursor cursor(vectors);
  return allocate(offset, done, cursor, done, held);
}

int MappedImage::flush() {
  if (readOnly_) return 0;
  std::lock_guard one(flushing_);
  std::vector<TableCache::Copy> copies;
  std::size_t pieces = 0;
  {
    std::lock_guard held(mutex_);
    copies = tables_->takeDirty();
    pieces = copies.size();
    if (pieces != 0) addState(copies);
    // The last block may be written in part; readers expect it whole. (All that is reserved lies below end_.)
    if (file_->size() < end_) {
      if (int error = file_->truncate(end_); error != 0 && error != EINVAL) {
        copies.resize(pieces);
        tables_->written(copies, true);
        return error;
      }
    }
  }
  int error = file_->flush();
  if (pieces == 0) return error;
  if (error == 0) error = writeTables(copies);
  copies.resize(pieces);
  {
    std::lock_guard held(mutex_);
    tables_->written(copies, error != 0);
  }
  return error == 0 ? file_->flush() : error;
}

void MappedImage::close() {
  if (readOnly_ || !tables_) return;
  if (int error = flush(); error != 0) {
    log(LogLevel::error, "image {}: close: {}", inQuotes(file_->name()), std::strerror(error));
  }
}

}  // namespace lodge::image
