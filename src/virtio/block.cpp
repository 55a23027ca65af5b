// SPDX-License-Identifier: Apache-2.0
#include "virtio/block.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "virtio/scatter.h"

namespace lodge::virtio {

namespace {

constexpr std::uint64_t kSector = 512;

namespace bit {
constexpr std::uint64_t segmentMax = 1 << 2, readOnly = 1 << 5, blockSize = 1 << 6, flush = 1 << 9, topology = 1 << 10,
                        multiQueue = 1 << 12, discard = 1 << 13, writeZeroes = 1 << 14;
}
enum RequestType : std::uint32_t { in = 0, out = 1, flush = 4, getId = 8, discard = 11, writeZeroes = 13 };
enum RequestStatus : std::uint8_t { ok = 0, ioError = 1, unsupported = 2 };

struct RequestHeader {
  std::uint32_t type;
  std::uint32_t reserved;
  std::uint64_t sector;
};
struct RangeSegment {
  std::uint64_t sector;
  std::uint32_t sectors;
  std::uint32_t flags;
};

/// struct virtio_blk_config (5.2.4).
struct [[gnu::packed]] Config {
  std::uint64_t capacity;
  std::uint32_t sizeMax;
  std::uint32_t segmentMax;
  std::uint16_t cylinders;
  std::uint8_t heads, sectors;
  std::uint32_t blockSize;
  std::uint8_t physicalBlockExponent, alignmentOffset;
  std::uint16_t minIoSize;
  std::uint32_t optimalIoSize;
  std::uint8_t writeback, unused0;
  std::uint16_t queues;
  std::uint32_t maxDiscardSectors, maxDiscardSegments, discardAlignment;
  std::uint32_t maxZeroSectors, maxZeroSegments;
  std::uint8_t zeroMayUnmap, unused1[3];
};
static_assert(sizeof(Config) == 60);

constexpr std::uint32_t kSegments = 254, kMaxRangeSectors = 1u << 22;

/// The last writable byte is the status; the rest is the data.
std::byte* takeStatusByte(std::vector<iovec>& vectors) {
  if (vectors.empty()) return nullptr;
  iovec& last = vectors.back();
  auto* byte = static_cast<std::byte*>(last.iov_base) + --last.iov_len;
  if (last.iov_len == 0) vectors.pop_back();
  return byte;
}

std::size_t scatter(std::span<const iovec> vectors, std::string_view data) {
  std::size_t done = 0;
  for (const iovec& v : vectors) {
    std::size_t part = std::min(v.iov_len, data.size() - done);
    std::memcpy(v.iov_base, data.data() + done, part);
    done += part;
  }
  return done;
}

}  // namespace

struct BlockDevice::Request {
  unsigned queue;
  Chain chain;
  std::vector<iovec> data;  // of the direction that the type has
  std::byte* status = nullptr;
  std::uint64_t dataBytes = 0;
  std::uint32_t written = 0;  // bytes that an OK reply fills, status not counted
  RequestHeader header{};
};

BlockDevice::BlockDevice(GuestMemory& memory, std::unique_ptr<Disk> disk, std::string serial, unsigned queues)
    : QueuedDevice(memory, queues), disk_(std::move(disk)), serial_(std::move(serial)), inFlightOf_(queues) {}

BlockDevice::~BlockDevice() {
  BlockDevice::reset();
}

std::uint64_t BlockDevice::features() const {
  std::uint64_t bits = bit::segmentMax | bit::blockSize | bit::flush | bit::topology | bit::multiQueue;
  return disk_->readOnly() ? bits | bit::readOnly : bits | bit::discard | bit::writeZeroes;
}

std::uint32_t BlockDevice::readConfig(std::uint64_t offset, unsigned size) {
  Config c{};
  c.capacity = disk_->sizeBytes() / kSector;
  c.segmentMax = kSegments;
  c.blockSize = kSector;
  c.physicalBlockExponent = 3;
  c.minIoSize = 8;
  c.queues = static_cast<std::uint16_t>(queueCount());
  c.maxDiscardSectors = c.maxZeroSectors = kMaxRangeSectors;
  c.maxDiscardSegments = c.maxZeroSegments = 1;
  c.discardAlignment = 8;
  c.zeroMayUnmap = 1;
  return readConfigBytes(&c, sizeof c, offset, size);
}

void BlockDevice::disableQueue(unsigned queue) {
  QueuedDevice::disableQueue(queue);
  std::unique_lock lock(flightMutex_);
  landed_.wait(lock, [&] { return inFlightOf_[queue] == 0; });
}

void BlockDevice::reset() {
  QueuedDevice::reset();
  std::unique_lock lock(flightMutex_);
  landed_.wait(lock, [&] { return inFlight_ == 0; });
}

bool BlockDevice::isQuiet() {
  std::lock_guard lock(flightMutex_);
  return inFlight_ == 0;
}

int BlockDevice::quiesce() {
  {
    std::unique_lock lock(flightMutex_);
    landed_.wait(lock, [&] { return inFlight_ == 0; });
  }
  return disk_->settle();
}

void BlockDevice::notify(unsigned queue) {
  drain(queue, [&](Chain chain) { start(queue, std::move(chain)); });
}

void BlockDevice::start(unsigned queue, Chain chain) {
  auto request = std::make_shared<Request>();
  request->queue = queue;
  request->chain = std::move(chain);
  std::vector<iovec> readable = request->chain.readable, writable = request->chain.writable;
  request->status = takeStatusByte(writable);
  if (!request->status || !takeFront(readable, &request->header, sizeof request->header)) {
    transport_->needsReset(queue);
    return;
  }
  {
    std::lock_guard lock(flightMutex_);
    ++inFlight_;
    ++inFlightOf_[queue];
  }
  ++requests_;
  bool toGuest = request->header.type == in || request->header.type == getId;
  request->data = toGuest ? std::move(writable) : std::move(readable);
  for (const iovec& v : request->data) request->dataBytes += v.iov_len;
  begin(std::move(request));
}

bool BlockDevice::inRange(std::uint64_t sector, std::uint64_t bytes) const {
  std::uint64_t size = disk_->sizeBytes();
  return bytes % kSector == 0 && sector <= size / kSector && bytes <= size - sector * kSector;
}

void BlockDevice::begin(std::shared_ptr<Request> request) {
  Request& r = *request;
  auto done = [this, request](int error) { end(*request, error == 0 ? ok : ioError); };
  switch (r.header.type) {
    case in:
      if (!inRange(r.header.sector, r.dataBytes)) return end(r, ioError);
      r.written = static_cast<std::uint32_t>(r.dataBytes);
      return disk_->read(r.header.sector * kSector, r.data, done);
    case out:
      if (disk_->readOnly() || !inRange(r.header.sector, r.dataBytes)) return end(r, ioError);
      return disk_->write(r.header.sector * kSector, r.data, done);
    case flush:
      return disk_->flush(done);
    case getId: {
      char id[20] = {};
      std::memcpy(id, serial_.data(), std::min(serial_.size(), sizeof id));
      r.written = static_cast<std::uint32_t>(scatter(r.data, {id, sizeof id}));
      return end(r, ok);
    }
    case discard:
    case writeZeroes:
      return startRange(request, r.header.type == writeZeroes);
    default:
      return end(r, unsupported);
  }
}

void BlockDevice::startRange(const std::shared_ptr<Request>& request, bool zeroes) {
  Request& r = *request;
  RangeSegment segment{};
  if (disk_->readOnly() || r.dataBytes != sizeof segment || !takeFront(r.data, &segment, sizeof segment))
    return end(r, ioError);
  bool unmap = (segment.flags & 1) != 0;
  if ((segment.flags & ~1u) != 0 || (!zeroes && unmap)) return end(r, unsupported);
  std::uint64_t bytes = segment.sectors * kSector;
  if (segment.sectors > kMaxRangeSectors || !inRange(segment.sector, bytes)) return end(r, ioError);
  auto done = [this, request](int error) { end(*request, error == 0 ? ok : ioError); };
  if (zeroes)
    disk_->writeZeroes(segment.sector * kSector, bytes, unmap, done);
  else
    disk_->discard(segment.sector * kSector, bytes, done);
}

void BlockDevice::end(Request& r, std::uint8_t status) {
  *r.status = std::byte{status};
  // The used length counts from the first writable byte; a failed read may have filled anything up to the status.
  std::uint32_t written =
      status == ok ? r.written + 1 : static_cast<std::uint32_t>(std::min<std::uint64_t>(r.chain.writableBytes, ~0u));
  finish(r.queue, std::move(r.chain), written);
  std::lock_guard lock(flightMutex_);
  --inFlight_;
  if (--inFlightOf_[r.queue] == 0) landed_.notify_all();
}

}  // namespace lodge::virtio
