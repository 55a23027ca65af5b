// SPDX-License-Identifier: Apache-2.0
// How often each cluster of the file is in use, and which are free. All under the exclusive lock.
#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/log.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

namespace {

/// Host offsets have 56 bits; files end before that.
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 55;

std::uint64_t readCount(const std::uint8_t* block, std::uint64_t index, unsigned order) {
  switch (order) {
    case 3:
      return block[index];
    case 4:
      return loadBe<std::uint16_t>(block + index * 2);
    case 5:
      return loadBe<std::uint32_t>(block + index * 4);
    case 6:
      return loadBe<std::uint64_t>(block + index * 8);
    default: {
      unsigned perByte = 8u >> order, bits = 1u << order;
      return block[index / perByte] >> (index % perByte * bits) & ((1u << bits) - 1);
    }
  }
}

void writeCount(std::uint8_t* block, std::uint64_t index, unsigned order, std::uint64_t count) {
  switch (order) {
    case 3:
      block[index] = static_cast<std::uint8_t>(count);
      break;
    case 4:
      storeLe(block + index * 2, __builtin_bswap16(static_cast<std::uint16_t>(count)));
      break;
    case 5:
      storeLe(block + index * 4, __builtin_bswap32(static_cast<std::uint32_t>(count)));
      break;
    case 6:
      storeLe(block + index * 8, __builtin_bswap64(count));
      break;
    default: {
      unsigned perByte = 8u >> order, bits = 1u << order, shift = static_cast<unsigned>(index % perByte) * bits;
      unsigned mask = ((1u << bits) - 1) << shift;
      std::uint8_t& byte = block[index / perByte];
      byte = static_cast<std::uint8_t>((byte & ~mask) | (static_cast<unsigned>(count) << shift & mask));
    }
  }
}

}  // namespace

int Qcow2Image::reloadRefcountTable() {
  std::vector<std::uint64_t> words;
  std::uint64_t entries = std::uint64_t{header_.refTableClusters} * cluster() / 8;
  if (Status read = readTable(header_.refTableOffset, entries, words); !read) return EIO;
  for (std::uint64_t& word : words) word &= entry::offsetMask;
  refTable_ = std::move(words);
  return 0;
}

int Qcow2Image::refcount(std::uint64_t index, std::uint64_t& count) {
  std::uint64_t block = index / refcountsPerBlock(), inside = index % refcountsPerBlock();
  count = 0;
  if (block >= refTable_.size() || refTable_[block] == 0) return 0;
  if ((refTable_[block] & (clusterBytes_ - 1)) != 0) {
    corrupted("refcount block out of place");
    return EIO;
  }
  std::uint64_t at = refTable_[block] + (inside << header_.refcountOrder) / 8;
  Slice* slice = nullptr;
  if (int error = cache_.load(at, TableKind::refcounts, slice); error != 0) return error;
  std::uint64_t perSlice = std::uint64_t{cache_.sliceBytes()} * 8 >> header_.refcountOrder;
  count = readCount(slice->bytes.data(), inside % perSlice, header_.refcountOrder);
  return 0;
}

int Qcow2Image::setRefcount(std::uint64_t index, std::uint64_t count) {
  std::uint64_t block = index / refcountsPerBlock(), inside = index % refcountsPerBlock();
  if (count > maxRefcount()) return EOVERFLOW;
  if (block >= refTable_.size() || refTable_[block] == 0) {
    if (int error = makeRefcountBlock(index); error != 0) return error;
  }
  if (hitsMetadata(refTable_[block], cluster())) {
    corrupted("refcount block out of place");
    return EIO;
  }
  std::uint64_t at = refTable_[block] + (inside << header_.refcountOrder) / 8;
  Slice* slice = nullptr;
  if (int error = cache_.load(at, TableKind::refcounts, slice); error != 0) return error;
  std::uint64_t perSlice = std::uint64_t{cache_.sliceBytes()} * 8 >> header_.refcountOrder;
  writeCount(slice->bytes.data(), inside % perSlice, header_.refcountOrder, count);
  cache_.markDirty(*slice);
  if (count == 0) nextFree_ = std::min(nextFree_, index);
  return 0;
}

int Qcow2Image::addRefcount(std::uint64_t offset, std::uint64_t bytes, int change) {
  if (bytes == 0) return 0;
  for (std::uint64_t i = offset / cluster(); i <= (offset + bytes - 1) / cluster(); ++i) {
    std::uint64_t count = 0;
    if (int error = refcount(i, count); error != 0) return error;
    if (change < 0 && count == 0) {
      corrupted("a cluster in use counts as free");
      continue;
    }
    if (change > 0 && count == maxRefcount()) return EOVERFLOW;
    if (int error = setRefcount(i, count + static_cast<std::uint64_t>(static_cast<std::int64_t>(change))); error != 0)
      return error;
    if (change < 0 && count == 1) cache_.drop(i * cluster(), cluster());
  }
  return 0;
}

int Qcow2Image::expectNoTable(std::uint64_t index) {
  std::uint64_t host = index * cluster();
  if (host >= freshFrom_) return 0;
  bool taken = hitsMetadata(host, cluster());
  if (!taken) {
    if (!oldTables_) {
      oldTables_.emplace();
      for (const auto* table : {&l1_, &refTable_}) {
        for (std::uint64_t word : *table) {
          if ((word & entry::offsetMask) != 0) oldTables_->push_back(word & entry::offsetMask);
        }
      }
      std::ranges::sort(*oldTables_);
    }
    // A table may have gone from there since.
    auto leadsThere = [&](std::uint64_t word) { return (word & entry::offsetMask) == host; };
    taken = std::ranges::binary_search(*oldTables_, host) &&
            (std::ranges::any_of(l1_, leadsThere) || std::ranges::any_of(refTable_, leadsThere));
  }
  if (taken) corrupted("one of its tables counts as free");
  return taken ? EIO : 0;
}

int Qcow2Image::clearCluster(std::uint64_t host) {
  cache_.drop(host, cluster());
  std::vector<std::byte> zeroes(cluster());
  return file_->write(host, zeroes.data(), zeroes.size());
}

/// The block that counts cluster `index`; it lies in the first cluster that it counts itself and that is free, so that
/// no other block is needed for it.
int Qcow2Image::makeRefcountBlock(std::uint64_t index) {
  std::uint64_t block = index / refcountsPerBlock();
  if (block >= refTable_.size()) {
    if (int error = growRefcountTable(block + 1); error != 0) return error;
    if (refTable_[block] != 0) return 0;
  }
  // Nothing that it counts is in use (else it would exist), but the caller is about to use `index` itself.
  std::uint64_t first = block * refcountsPerBlock(), own = first == index ? first + 1 : first;
  if (refcountsPerBlock() == 1) return EFBIG;
  if (int error = expectNoTable(own); error != 0) return error;
  if (int error = clearCluster(own * cluster()); error != 0) return error;
  refTable_[block] = own * cluster();
  dirtyRefTable_.insert(block);
  freshFrom_ = std::max(freshFrom_, (own + 1) * cluster());
  return setRefcount(own, 1);
}

/// A larger table, in clusters that the old one cannot count: nothing can be there. It counts them itself by blocks
/// that lie beside it.
/// Waiting for a flush under the lock would be a deadlock: EAGAIN then.
int Qcow2Image::growRefcountTable(std::uint64_t atLeast) {
  std::unique_lock flushing(flushMutex_, std::try_to_lock);
  if (!flushing) return EAGAIN;  // the caller waits for the flush and comes again
  std::uint64_t perBlock = refcountsPerBlock(), perCluster = cluster() / 8;
  std::uint64_t start = refTable_.size() * perBlock;  // cluster index
  start = std::max(start, (freshFrom_ + cluster() - 1) / cluster());
  std::uint64_t blocks = 0, tableClusters = 0;
  for (int round = 0; round < 8; ++round) {
    std::uint64_t entries = std::max(atLeast + atLeast / 2 + 1, (start + tableClusters + blocks) / perBlock + 1);
    tableClusters = (entries + perCluster - 1) / perCluster;
    blocks = (start + tableClusters + 2 * blocks + perBlock) / perBlock - start / perBlock + 1;
  }
  if (tableClusters * cluster() > kMaxRefTableBytes || start * cluster() > kMaxFileBytes) return EFBIG;
  std::vector<std::uint64_t> table = refTable_;
  table.resize(tableClusters * perCluster);
  std::uint64_t firstBlock = start / perBlock, end = start + tableClusters + blocks;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    if (firstBlock + i >= table.size()) return EFBIG;
    if (table[firstBlock + i] != 0) continue;
    table[firstBlock + i] = (start + tableClusters + i) * cluster();
    std::vector<std::uint8_t> content(cluster());
    for (std::uint64_t c = std::max(start, (firstBlock + i) * perBlock);
         c < std::min(end, (firstBlock + i + 1) * perBlock); ++c)
      writeCount(content.data(), c % perBlock, header_.refcountOrder, 1);
    if (int error = file_->write(table[firstBlock + i], content.data(), content.size()); error != 0) return error;
  }
  std::uint64_t oldOffset = header_.refTableOffset, oldBytes = std::uint64_t{header_.refTableClusters} * cluster();
  refTable_ = table;
  dirtyRefTable_.clear();
  freshFrom_ = std::max(freshFrom_, end * cluster());
  // The table is written with what the cache knows, so all of it has to be on the disk before the header changes.
  auto copies = cache_.takeDirty();
  int error = 0;
  for (const auto& copy : copies) {
    if (error == 0 && copy.kind == TableKind::refcounts)
      error = file_->write(copy.offset, copy.bytes.data(), copy.bytes.size());
  }
  cache_.endWriting(copies, true);
  if (error == 0) error = writeTable(start * cluster(), table);
  if (error == 0) error = file_->flush();
  if (error != 0) return error;
  header_.refTableOffset = start * cluster();
  header_.refTableClusters = static_cast<std::uint32_t>(tableClusters);
  if (!storeHeader()) return EIO;
  if (error = file_->flush(); error != 0) return error;
  freeLater(oldOffset, oldBytes);
  return 0;
}

int Qcow2Image::allocate(std::uint64_t want, std::uint64_t& host, std::uint64_t& got, bool* fresh) {
  std::uint64_t index = nextFree_, count = 0;
  for (;;) {
    if (index * cluster() >= kMaxFileBytes) return EFBIG;
    std::uint64_t block = index / refcountsPerBlock();
    if (block >= refTable_.size() || refTable_[block] == 0) {
      // What counts it may come to lie in its place: look again.
      if (int error = makeRefcountBlock(index); error != 0) return error;
      continue;
    }
    if (int error = refcount(index, count); error != 0) return error;
    if (count == 0) break;
    ++index;
  }
  if (int error = expectNoTable(index); error != 0) return error;
  if (int error = setRefcount(index, 1); error != 0) return error;
  got = 1;
  while (got < want) {
    std::uint64_t next = index + got;
    if (int error = refcount(next, count); error != 0) return error;
    if (count != 0 || next % refcountsPerBlock() == 0) break;
    if (int error = expectNoTable(next); error != 0) return error;
    if (int error = setRefcount(next, 1); error != 0) return error;
    ++got;
  }
  nextFree_ = index + got;
  host = index * cluster();
  if (fresh) *fresh = host >= freshFrom_;
  freshFrom_ = std::max(freshFrom_, host + got * cluster());
  return 0;
}

int Qcow2Image::allocateOne(std::uint64_t& host) {
  for (;;) {
    int error = 0;
    {
      std::unique_lock lock(mutex_);
      std::uint64_t got = 0;
      error = allocate(1, host, got);
    }
    if (error != EAGAIN) return error;
    if (error = flushMetadata(); error != 0) return error;
  }
}

/// A free row of `clusters`, and right behind it one for each block of refcounts that is still missing to count all of
/// that: a block inside would interrupt every row that is longer than what one block counts.
int Qcow2Image::findRow(std::uint64_t clusters, std::uint64_t& start, std::vector<std::uint64_t>& missing) {
  start = nextFree_;
  missing.clear();
  for (std::uint64_t index = start; index - start < clusters + missing.size(); ++index) {
    if (index * cluster() >= kMaxFileBytes) return EFBIG;
    std::uint64_t block = index / refcountsPerBlock(), count = 0;
    if (block >= refTable_.size()) {
      if (int error = growRefcountTable(block + 1); error != 0) return error;
      start = nextFree_;
      missing.clear();
      index = start - 1;
      continue;
    }
    if (refTable_[block] == 0) {
      if (int error = expectNoTable(index); error != 0) return error;
      if (missing.empty() || missing.back() != block) missing.push_back(block);
      continue;
    }
    if (int error = refcount(index, count); error != 0) return error;
    if (count == 0) {
      if (int error = expectNoTable(index); error != 0) return error;
      continue;
    }
    start = index + 1;
    missing.clear();
  }
  return 0;
}

int Qcow2Image::allocateRow(std::uint64_t clusters, std::uint64_t& host) {
  std::uint64_t start = 0;
  std::vector<std::uint64_t> missing;
  if (int error = findRow(clusters, start, missing); error != 0) return error;
  std::uint64_t end = start + clusters;
  for (std::uint64_t block : missing) {
    if (int error = clearCluster(end * cluster()); error != 0) return error;
    refTable_[block] = end++ * cluster();
    dirtyRefTable_.insert(block);
  }
  for (std::uint64_t i = start; i < end; ++i) {
    if (int error = setRefcount(i, 1); error != 0) return error;
  }
  host = start * cluster();
  freshFrom_ = std::max(freshFrom_, end * cluster());
  return 0;
}

void Qcow2Image::freeLater(std::uint64_t host, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (!freed_.empty() && freed_.back().first + freed_.back().second == host && host % cluster() == 0 &&
      freed_.back().first % cluster() == 0) {
    freed_.back().second += bytes;
    return;
  }
  freed_.emplace_back(host, bytes);
}

int Qcow2Image::applyFrees(std::vector<std::pair<std::uint64_t, std::uint64_t>> freed) {
  {
    std::lock_guard lock(decodedMutex_);
    decodedOffset_ = ~std::uint64_t{0};
  }
  for (auto [host, bytes] : freed) {
    // Nobody else can bring the count up meanwhile, so what has a count of one is the file system's again.
    std::uint64_t begin = 0, end = 0;
    int error = 0;
    std::unique_lock lock(mutex_);
    for (std::uint64_t i = host / cluster(); i <= (host + bytes - 1) / cluster() && error == 0; ++i) {
      std::uint64_t count = 0;
      error = refcount(i, count);
      if (count != 1) continue;
      if (end != i * cluster() && end != begin) {
        file_->discard(begin, end - begin);
        begin = end = 0;
      }
      if (begin == end) begin = i * cluster();
      end = (i + 1) * cluster();
    }
    if (end != begin && begin < file_->size()) file_->discard(begin, std::min(end, file_->size()) - begin);
    if (error == 0) error = addRefcount(host, bytes, -1);
    if (error != 0) return error;
  }
  return 0;
}

}  // namespace lodge::image::qcow2
