// SPDX-License-Identifier: Apache-2.0
// Registers and queues; commands are in nvme_admin.cpp and nvme_io.cpp.
#include "storage/nvme_controller.h"

#include <algorithm>

namespace lodge {

using namespace nvme;

namespace {
constexpr PciIdentity kIdentity{0x1b36, 0x0010, 2, 0x010802, 0x1af4, 0x1100};
// Maximum queue size, contiguous queues, 2.5 s to get ready, 4-byte doorbell stride, NVM commands, pages of 4 KiB.
constexpr std::uint64_t kCap = (NvmeController::kMaxEntries - 1) | 1u << 16 | 5u << 24 | std::uint64_t{1} << 37;
constexpr std::uint32_t kVersion = 0x00010400;
constexpr unsigned kBarBytes = 0x4000;

void setHalf(std::uint64_t& field, unsigned half, std::uint32_t value) {
  unsigned shift = 32 * half;
  field = (field & ~(std::uint64_t{0xffff'ffff} << shift)) | std::uint64_t{value} << shift;
}
}  // namespace

NvmeController::NvmeController(GuestMemory& memory, std::shared_ptr<Disk> disk, std::string serial)
    : PciFunction(kIdentity, "nvme " + serial), memory_(memory), disk_(std::move(disk)), serial_(std::move(serial)) {
  addBar(0, BarKind::memory64, kBarBytes, *this);
  addMsix(4, kMaxQueues + 1);
  // PCI Express endpoint (PCIe 4.0, 7.5.3): a slot of its own, without link registers.
  const std::uint8_t express[]{0x92, 0x00, 0x00, 0x80, 0x00, 0x10, 0, 0, 0, 0};
  addCapability(0x10, express);
  useIntx();
}

NvmeController::~NvmeController() {
  std::unique_lock lock(mutex_);
  disable(lock);
}

void NvmeController::reset() {
  {
    std::unique_lock lock(mutex_);
    disable(lock);
    cc_ = csts_ = aqa_ = masked_ = 0;
    asq_ = acq_ = 0;
    features_ = {};
  }
  PciFunction::reset();
}

std::uint64_t NvmeController::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  auto at = static_cast<unsigned>(offset);
  if (at >= reg::end || at / 4 != (at + size - 1) / 4) {
    if (at >= reg::end || size != 8 || at % 4 != 0) return 0;
    return readRegisterLocked(at) | std::uint64_t{readRegisterLocked(at + 4)} << 32;
  }
  std::uint64_t value = readRegisterLocked(at & ~3u) >> (8 * (at % 4));
  return size >= 4 ? value : value & ((1u << (8 * size)) - 1);
}

std::uint32_t NvmeController::readRegisterLocked(unsigned offset) const {
  switch (offset) {
    case reg::cap:
      return static_cast<std::uint32_t>(kCap);
    case reg::cap + 4:
      return static_cast<std::uint32_t>(kCap >> 32);
    case reg::vs:
      return kVersion;
    case reg::intms:
    case reg::intmc:
      return masked_;
    case reg::cc:
      return cc_;
    case reg::csts:
      return csts_;
    case reg::aqa:
      return aqa_;
    case reg::asq:
      return static_cast<std::uint32_t>(asq_);
    case reg::asq + 4:
      return static_cast<std::uint32_t>(asq_ >> 32);
    case reg::acq:
      return static_cast<std::uint32_t>(acq_);
    case reg::acq + 4:
      return static_cast<std::uint32_t>(acq_ >> 32);
    default:
      return 0;
  }
}

// Registers are written as double words or as both halves of a quad word (3.1); smaller writes do nothing.
void NvmeController::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (offset % 4 != 0 || size < 4) return;
  for (unsigned half = 0; half < size / 4; ++half) {
    unsigned at = static_cast<unsigned>(offset) + 4 * half;
    auto part = static_cast<std::uint32_t>(value >> (32 * half));
    if (at >= reg::doorbells)
      doorbell((at - reg::doorbells) / 4, part);
    else
      writeRegister(at, part);
  }
}

void NvmeController::writeRegister(unsigned offset, std::uint32_t value) {
  if (offset == reg::cc) return configure(value);
  std::lock_guard lock(mutex_);
  bool enabled = (cc_ & kCcEnable) != 0;
  switch (offset) {
    case reg::intms:
      masked_ |= value;
      return updateIntxLocked();
    case reg::intmc:
      masked_ &= ~value;
      return updateIntxLocked();
    case reg::aqa:
      if (!enabled) aqa_ = value & 0x0fff'0fff;
      return;
    case reg::asq:
    case reg::asq + 4:
      if (!enabled) setHalf(asq_, (offset - reg::asq) / 4, value);
      asq_ &= ~(kPage - 1);
      return;
    case reg::acq:
    case reg::acq + 4:
      if (!enabled) setHalf(acq_, (offset - reg::acq) / 4, value);
      acq_ &= ~(kPage - 1);
      return;
    default:
      return;
  }
}

void NvmeController::configure(std::uint32_t value) {
  std::unique_lock lock(mutex_);
  std::uint32_t old = cc_;
  cc_ = value & 0x00ff'fff1;
  if ((old & kCcEnable) == 0 && (cc_ & kCcEnable) != 0) enableLocked();
  if ((old & kCcEnable) != 0 && (cc_ & kCcEnable) == 0) disable(lock);
  if ((cc_ & kCcShutdown) == 0) csts_ &= ~kStsShutdown;
  if ((old & kCcShutdown) != 0 || (cc_ & kCcShutdown) == 0) return;
  // Shutdown (7.6.2): what was written is kept.
  csts_ = (csts_ & ~kStsShutdown) | 1u << 2;
  ++inFlight_;
  lock.unlock();
  disk_->flush([this](int) {
    {
      std::lock_guard done(mutex_);
      if ((csts_ & kStsShutdown) != 0) csts_ = (csts_ & ~kStsShutdown) | kStsShutdownDone;
    }
    ended();
  });
}

// CC's memory page size, command set and entry sizes must be what CAP and identification offer (3.1.5).
void NvmeController::enableLocked() {
  unsigned pageSize = cc_ >> 7 & 15, commands = cc_ >> 4 & 7, arbitration = cc_ >> 11 & 7;
  if (pageSize != 0 || commands != 0 || arbitration != 0) {
    csts_ |= kStsFatal;
    return;
  }
  submissions_[0] = {};
  submissions_[0].base = asq_;
  submissions_[0].size = (aqa_ & 0xfff) + 1;
  completions_[0] = {};
  completions_[0].base = acq_;
  completions_[0].size = (aqa_ >> 16) + 1;
  completions_[0].interrupts = true;
  csts_ = kStsReady;
}

void NvmeController::disable(std::unique_lock<std::mutex>& lock) {
  csts_ &= ~(kStsReady | kStsFatal);
  submissions_ = {};
  completions_ = {};
  asyncEvents_.clear();
  landed_.wait(lock, [this] { return inFlight_ == 0; });
  updateIntxLocked();
}

// Doorbell 2y is the tail of submission queue y, 2y + 1 the head of completion queue y (3.1.24). A value outside the
// queue is ignored.
void NvmeController::doorbell(unsigned index, std::uint32_t value) {
  unsigned queue = index / 2;
  if (queue > kMaxQueues) return;
  bool room = false;
  {
    std::lock_guard lock(mutex_);
    if ((csts_ & kStsReady) == 0) return;
    if (index % 2 == 0) {
      if (value >= submissions_[queue].size) return;
      submissions_[queue].tail = value;
    } else {
      CompletionQueue& cq = completions_[queue];
      if (value >= cq.size) return;
      cq.head = value;
      room = !cq.waiting.empty();
      postLocked(cq);
      updateIntxLocked();
    }
  }
  if (index % 2 == 0) return serve(queue);
  for (unsigned sq = 0; room && sq <= kMaxQueues; ++sq) serve(sq);
}

// A queue has no more commands under way than it has entries, whatever the guest does with its doorbells.
void NvmeController::serve(unsigned sq) {
  for (bool first = true;;) {
    Fetched fetched{sq, {}};
    {
      std::lock_guard lock(mutex_);
      SubmissionQueue& queue = submissions_[sq];
      if (first && queue.serving) return;  // that thread looks once more before it leaves
      first = false;
      bool idle = queue.size == 0 || queue.head == queue.tail || queue.running >= queue.size;
      queue.serving = (csts_ & kStsReady) != 0 && !idle;
      if (!queue.serving) return;
      if (!memory_.readObject(Gpa{queue.base + std::uint64_t{queue.head} * sizeof(Command)}, fetched.command)) {
        csts_ |= kStsFatal;
        queue.head = queue.tail;
        queue.serving = false;
        return;
      }
      if (++queue.head == queue.size) queue.head = 0;
      ++queue.running;
    }
    run(fetched);
  }
}

void NvmeController::run(const Fetched& fetched) {
  const Command& c = fetched.command;
  Answer answer;
  if ((c.flags & 0xc3) != 0) {  // fused operations and SGLs are not offered
    answer.status = status::invalidField;
  } else {
    answer = fetched.sq == 0 ? runAdmin(c) : runIo(fetched.sq, c);
  }
  if (!answer.later) complete(fetched.sq, c.id, answer.status, answer.result);
}

void NvmeController::complete(unsigned sq, std::uint16_t id, std::uint16_t status, std::uint32_t result) {
  bool more = false;
  {
    std::lock_guard lock(mutex_);
    SubmissionQueue& queue = submissions_[sq];
    if (queue.size == 0 || queue.running == 0) return;  // the queue went away meanwhile
    more = queue.running == queue.size;
    CompletionQueue& cq = completions_[queue.cq];
    constexpr unsigned kDoNotRetry = 0x8000;
    unsigned field = status == 0 ? 0u : unsigned{status} << 1 | kDoNotRetry;
    cq.waiting.push_back({result, 0, static_cast<std::uint16_t>(queue.head), static_cast<std::uint16_t>(sq), id,
                          static_cast<std::uint16_t>(field)});
    postLocked(cq);
  }
  if (more) serve(sq);
}

void NvmeController::postLocked(CompletionQueue& cq) {
  bool posted = false;
  while (!cq.waiting.empty() && cq.size != 0 && (cq.tail + 1) % cq.size != cq.head) {
    Completion entry = cq.waiting.front();
    cq.waiting.pop_front();
    SubmissionQueue& sq = submissions_[entry.sqId];
    if (sq.running != 0) --sq.running;
    entry.status |= cq.phase ? 1 : 0;
    if (!memory_.writeObject(Gpa{cq.base + std::uint64_t{cq.tail} * sizeof entry}, entry)) csts_ |= kStsFatal;
    if (++cq.tail == cq.size) {
      cq.tail = 0;
      cq.phase = !cq.phase;
    }
    posted = true;
  }
  if (posted) interruptLocked(cq);
}

void NvmeController::interruptLocked(const CompletionQueue& queue) {
  if (!queue.interrupts) return;
  if (msixEnabled())
    signalMsix(queue.vector);
  else
    updateIntxLocked();
}

// Without MSI-X there is one vector: it is asserted while a queue has entries that the guest has not taken (7.5.1).
void NvmeController::updateIntxLocked() {
  bool level = false;
  for (const CompletionQueue& cq : completions_) {
    level = level || (cq.interrupts && cq.head != cq.tail && (masked_ >> cq.vector & 1) == 0);
  }
  setIntx(level);
}

void NvmeController::begun() {
  std::lock_guard lock(mutex_);
  ++inFlight_;
}

void NvmeController::ended() {
  std::lock_guard lock(mutex_);
  if (--inFlight_ == 0) landed_.notify_all();
}

}  // namespace lodge
