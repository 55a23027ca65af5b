// SPDX-License-Identifier: Apache-2.0
// Admin commands (NVM Express 1.4, chapter 5).
#include <algorithm>

#include "base/bytes.h"
#include "storage/nvme_controller.h"

namespace lodge {

using namespace nvme;

namespace {
using Bytes = std::vector<std::uint8_t>;

template <class T>
void put(Bytes& bytes, std::size_t at, T value) {
  storeLe(bytes.data() + at, value);
}
void putText(Bytes& bytes, std::size_t at, std::size_t length, std::string_view text) {
  for (std::size_t n = 0; n < length; ++n) bytes[at + n] = static_cast<std::uint8_t>(n < text.size() ? text[n] : ' ');
}
/// The same at each start: an EUI-64 of a locally administered kind, from the serial number.
std::uint64_t eui64(std::string_view serial) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : serial) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  return (hash & ~std::uint64_t{0xff}) | 0x02;
}
}  // namespace

NvmeController::Answer NvmeController::runAdmin(const Command& c) {
  switch (c.opcode) {
    case admin::createSq:
    case admin::createCq:
      return createQueue(c);
    case admin::deleteSq:
    case admin::deleteCq:
      return deleteQueue(c);
    case admin::identify:
      return identify(c);
    case admin::getLogPage:
      return logPage(c);
    case admin::setFeatures:
    case admin::getFeatures:
      return features(c);
    case admin::abort:
      return {.result = 1};  // the command was not aborted: it ends by itself
    case admin::asyncEvent: {
      std::lock_guard lock(mutex_);
      if (asyncEvents_.size() > kAsyncLimit) return {status::asyncLimit};
      asyncEvents_.push_back(c.id);
      if (submissions_[0].running != 0) --submissions_[0].running;  // they may wait for ever
      return {.later = true};
    }
    default:
      return {status::invalidOpcode};
  }
}

NvmeController::Answer NvmeController::createQueue(const Command& c) {
  std::lock_guard lock(mutex_);
  unsigned id = c.dw10 & 0xffff;
  std::uint32_t size = (c.dw10 >> 16) + 1;
  bool submission = c.opcode == admin::createSq;
  bool there = id <= kMaxQueues && (submission ? submissions_[id].size : completions_[id].size) != 0;
  if (id == 0 || id > kMaxQueues || there) return {status::invalidQueueId};
  if (size < 2 || size > kMaxEntries) return {status::invalidQueueSize};
  if ((c.dw11 & 1) == 0 || c.prp1 % kPage != 0) return {status::invalidField};  // contiguous only
  if (submission) {
    unsigned cq = c.dw11 >> 16;
    if (cq == 0 || cq > kMaxQueues || completions_[cq].size == 0) return {status::cqInvalid};
    submissions_[id] = {};
    submissions_[id].base = c.prp1;
    submissions_[id].size = size;
    submissions_[id].cq = static_cast<std::uint16_t>(cq);
    return {};
  }
  unsigned vector = c.dw11 >> 16;
  bool interrupts = (c.dw11 & 2) != 0;
  if (interrupts && vector > kMaxQueues) return {status::invalidVector};
  completions_[id] = {};
  completions_[id].base = c.prp1;
  completions_[id].size = size;
  completions_[id].interrupts = interrupts;
  completions_[id].vector = static_cast<std::uint16_t>(interrupts ? vector : 0);
  return {};
}

NvmeController::Answer NvmeController::deleteQueue(const Command& c) {
  std::unique_lock lock(mutex_);
  unsigned id = c.dw10 & 0xffff;
  bool submission = c.opcode == admin::deleteSq;
  if (id == 0 || id > kMaxQueues) return {status::invalidQueueId};
  if (submission) {
    if (submissions_[id].size == 0) return {status::invalidQueueId};
    // The commands that it has begun end first; their entries are dropped (5.6).
    submissions_[id] = {};
    landed_.wait(lock, [this] { return inFlight_ == 0; });
    return {};
  }
  if (completions_[id].size == 0) return {status::invalidQueueId};
  for (const SubmissionQueue& sq : submissions_) {
    if (sq.size != 0 && sq.cq == id) return {status::invalidQueueDeletion};
  }
  completions_[id] = {};
  updateIntxLocked();
  return {};
}

std::uint16_t NvmeController::giveData(const Command& c, Bytes data, std::uint64_t length) {
  GuestBuffers buffers(memory_);
  if (std::uint16_t bad = mapPrps(c, length, buffers); bad != 0) return bad;
  data.resize(length);
  buffers.write(0, data);
  return status::success;
}

Bytes NvmeController::controllerData() const {
  Bytes d(4096);
  put<std::uint16_t>(d, 0, 0x1b36);
  put<std::uint16_t>(d, 2, 0x1af4);
  putText(d, 4, 20, serial_);
  putText(d, 24, 40, "Lodge NVMe disk");
  putText(d, 64, 8, "1.0");
  d[72] = 6;
  d[77] = kMdts;
  put<std::uint32_t>(d, 80, 0x00010400);
  d[111] = 1;  // an I/O controller
  d[258] = 3;
  d[259] = kAsyncLimit;
  d[260] = 3;  // one firmware slot, read-only
  d[261] = 4;  // extended data of log pages
  put<std::uint16_t>(d, 266, 343);
  put<std::uint16_t>(d, 268, 373);
  d[512] = 0x66;
  d[513] = 0x44;
  put<std::uint32_t>(d, 516, 1);
  put<std::uint16_t>(d, 520, 0x0c);  // dataset management, write zeroes
  d[525] = 7;                        // a volatile write cache; flush takes the broadcast namespace
  std::string name = "nqn.2014-08.org.nvmexpress:lodge:" + serial_;
  std::copy_n(name.begin(), std::min<std::size_t>(name.size(), 223), d.begin() + 768);
  put<std::uint16_t>(d, 2048, 2500);  // power state 0: 25 W
  return d;
}

Bytes NvmeController::namespaceData() const {
  Bytes d(4096);
  for (unsigned at : {0u, 8u, 16u}) put<std::uint64_t>(d, at, blocks());
  d[33] = 9;  // deallocated blocks read as zero, write zeroes may deallocate
  d[99] = disk_->readOnly() ? 1 : 0;
  put<std::uint64_t>(d, 120, eui64(serial_));
  put<std::uint32_t>(d, 128, 9u << 16);  // format 0: blocks of 512 bytes
  return d;
}

NvmeController::Answer NvmeController::identify(const Command& c) {
  Bytes data;
  switch (c.dw10 & 0xff) {
    case 0:
      if (c.nsid != 1 && c.nsid != 0xffff'ffff) return {status::invalidNamespace};
      data = namespaceData();
      if (c.nsid != 1) std::fill_n(data.begin(), 24, std::uint8_t{0});  // what all namespaces have in common
      break;
    case 1:
      data = controllerData();
      break;
    case 2:
      if (c.nsid >= 0xffff'fffe) return {status::invalidNamespace};
      data.resize(4096);
      if (c.nsid == 0) data[0] = 1;
      break;
    case 3:
      if (c.nsid != 1) return {status::invalidNamespace};
      data.resize(4096);
      data[0] = 1;
      data[1] = 8;
      put<std::uint64_t>(data, 4, eui64(serial_));
      break;
    default:
      return {status::invalidField};
  }
  return {giveData(c, std::move(data), 4096)};
}

NvmeController::Answer NvmeController::logPage(const Command& c) {
  Bytes data;
  switch (c.dw10 & 0xff) {
    case 1:  // errors: none
      data.resize(64);
      break;
    case 2:  // health
      data.resize(512);
      put<std::uint16_t>(data, 1, 300);
      data[3] = 100;
      data[4] = 10;
      break;
    case 3:  // firmware slots
      data.resize(512);
      data[0] = 1;
      putText(data, 8, 8, "1.0");
      break;
    default:
      return {status::invalidLogPage};
  }
  std::uint64_t length = (std::uint64_t{c.dw11 & 0xffff} << 16 | c.dw10 >> 16) * 4 + 4;
  std::uint64_t offset = c.dw12 | std::uint64_t{c.dw13} << 32;
  if (offset > data.size() || offset % 4 != 0 || length > kPage << kMdts) return {status::invalidField};
  data.erase(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(offset));
  return {giveData(c, std::move(data), length)};
}

NvmeController::Answer NvmeController::features(const Command& c) {
  constexpr unsigned kArbitration = 1, kWriteCache = 6, kQueues = 7, kAsyncConfig = 11;
  unsigned which = c.dw10 & 0xff;
  if (which < kArbitration || which > kAsyncConfig || which == 3) return {status::invalidField};
  std::lock_guard lock(mutex_);
  if (which == kQueues) return {.result = (kMaxQueues - 1) << 16 | (kMaxQueues - 1)};
  if (c.opcode == admin::getFeatures) return {.result = which == kWriteCache ? 1 : features_[which]};
  features_[which] = c.dw11;
  return {.result = 0};
}

}  // namespace lodge
