// SPDX-License-Identifier: Apache-2.0
// I/O commands and the lists of pages that they transfer (NVM Express 1.4, 6 and 4.3).
#include <algorithm>
#include <atomic>

#include "storage/nvme_controller.h"

namespace lodge {

using namespace nvme;

namespace {
struct DatasetRange {
  std::uint32_t attributes, length;
  std::uint64_t first;
};
static_assert(sizeof(DatasetRange) == 16);
constexpr std::uint32_t kBroadcast = 0xffff'ffff;
}  // namespace

NvmeController::Answer NvmeController::runIo(unsigned sq, const Command& c) {
  if (c.nsid != 1 && !(c.opcode == io::flush && c.nsid == kBroadcast)) return {status::invalidNamespace};
  switch (c.opcode) {
    case io::flush:
      begun();
      disk_->flush([this, sq, id = c.id](int error) {
        complete(sq, id, error == 0 ? status::success : status::writeFault);
        ended();
      });
      return {.later = true};
    case io::read:
    case io::write:
      return transfer(sq, c);
    case io::writeZeroes:
      return zero(sq, c);
    case io::datasetManagement:
      return deallocate(sq, c);
    default:
      return {status::invalidOpcode};
  }
}

// PRP 1 may begin inside a page, all that follows are whole pages; more than two pages come by a list, whose last entry
// leads to the next list where one page is not enough (4.3).
std::uint16_t NvmeController::mapPrps(const Command& c, std::uint64_t length, GuestBuffers& buffers) {
  if (length == 0) return status::success;
  std::uint64_t first = std::min(length, kPage - c.prp1 % kPage);
  if (!buffers.add(c.prp1, first)) return status::dataTransferError;
  length -= first;
  if (length == 0) return status::success;
  if (length <= kPage) {
    if (c.prp2 % kPage != 0) return status::invalidField;
    return buffers.add(c.prp2, length) ? status::success : status::dataTransferError;
  }
  if (c.prp2 % 8 != 0) return status::invalidField;
  std::uint64_t at = c.prp2;
  while (length != 0) {
    std::uint64_t entry = 0;
    if (!memory_.readObject(Gpa{at}, entry)) return status::dataTransferError;
    bool lastOfPage = at % kPage == kPage - 8;
    if (entry % (lastOfPage && length > kPage ? 8 : kPage) != 0) return status::invalidField;
    if (lastOfPage && length > kPage) {
      at = entry;
      // A list that leads to the last entry of a page leads on and on: a whole page is asked for.
      if (at % kPage == kPage - 8) return status::invalidField;
      continue;
    }
    std::uint64_t part = std::min(length, kPage);
    if (!buffers.add(entry, part)) return status::dataTransferError;
    length -= part;
    at += 8;
  }
  return status::success;
}

NvmeController::Answer NvmeController::transfer(unsigned sq, const Command& c) {
  std::uint64_t first = c.dw10 | std::uint64_t{c.dw11} << 32, count = (c.dw12 & 0xffff) + std::uint64_t{1};
  bool write = c.opcode == io::write;
  if (count * kBlock > kPage << kMdts) return {status::invalidField};
  if (first > blocks() || count > blocks() - first) return {status::lbaOutOfRange};
  if (write && disk_->readOnly()) return {status::readOnlyRange};
  auto buffers = std::make_shared<GuestBuffers>(memory_);
  if (std::uint16_t bad = mapPrps(c, count * kBlock, *buffers); bad != 0) return {bad};
  begun();
  auto done = [this, sq, id = c.id, write, buffers](int error) {
    if (!write) buffers->written();
    std::uint16_t failed = write ? status::writeFault : status::unrecoveredRead;
    complete(sq, id, error == 0 ? status::success : failed);
    ended();
  };
  if (write)
    disk_->write(first * kBlock, buffers->vectors(), done);
  else
    disk_->read(first * kBlock, buffers->vectors(), done);
  return {.later = true};
}

NvmeController::Answer NvmeController::zero(unsigned sq, const Command& c) {
  std::uint64_t first = c.dw10 | std::uint64_t{c.dw11} << 32, count = (c.dw12 & 0xffff) + std::uint64_t{1};
  bool mayUnmap = (c.dw12 >> 25 & 1) != 0;
  if (first > blocks() || count > blocks() - first) return {status::lbaOutOfRange};
  if (disk_->readOnly()) return {status::readOnlyRange};
  begun();
  disk_->writeZeroes(first * kBlock, count * kBlock, mayUnmap, [this, sq, id = c.id](int error) {
    complete(sq, id, error == 0 ? status::success : status::writeFault);
    ended();
  });
  return {.later = true};
}

// Dataset management (6.7): only deallocation does something, the other attributes are advice.
NvmeController::Answer NvmeController::deallocate(unsigned sq, const Command& c) {
  std::size_t count = (c.dw10 & 0xff) + std::size_t{1};
  std::vector<DatasetRange> ranges(count);
  GuestBuffers buffers(memory_);
  if (std::uint16_t bad = mapPrps(c, count * sizeof(DatasetRange), buffers); bad != 0) return {bad};
  buffers.read(0, {reinterpret_cast<std::uint8_t*>(ranges.data()), count * sizeof(DatasetRange)});
  for (const DatasetRange& r : ranges) {
    if (r.first > blocks() || r.length > blocks() - r.first) return {status::lbaOutOfRange};
  }
  if ((c.dw11 & 4) == 0) return {};
  if (disk_->readOnly()) return {status::readOnlyRange};
  struct Progress {
    std::atomic<std::size_t> left;
    std::atomic<int> error{0};
  };
  auto progress = std::make_shared<Progress>();
  progress->left = count;
  begun();
  auto done = [this, sq, id = c.id, progress](int error) {
    if (error != 0) progress->error = error;
    if (--progress->left != 0) return;
    complete(sq, id, progress->error == 0 ? status::success : status::writeFault);
    ended();
  };
  for (const DatasetRange& r : ranges) disk_->discard(r.first * kBlock, std::uint64_t{r.length} * kBlock, done);
  return {.later = true};
}

}  // namespace lodge
