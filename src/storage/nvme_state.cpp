// SPDX-License-Identifier: Apache-2.0
// How an NVMe controller is saved and loaded: between commands, but with what waits for room in a completion queue.
#include "storage/nvme_controller.h"

namespace lodge {

using state::Archive;

bool NvmeController::isQuiet() {
  std::lock_guard lock(mutex_);
  return inFlight_ == 0;
}

int NvmeController::quiesce() {
  {
    std::unique_lock lock(mutex_);
    landed_.wait(lock, [this] { return inFlight_ == 0; });
  }
  return disk_->settle();
}

void NvmeController::transferQueues(Archive& a) {
  constexpr std::uint32_t kMostAdmin = 4096;
  for (SubmissionQueue& q : submissions_) {
    a(q.base, q.size, q.head, q.tail, q.cq, q.running);
    a.require(q.size <= kMostAdmin && q.cq <= kMaxQueues && q.running <= q.size, "an NVMe submission queue");
    a.require(q.size == 0 || (q.head < q.size && q.tail < q.size), "an NVMe submission queue's place");
  }
  for (CompletionQueue& q : completions_) {
    a(q.base, q.size, q.head, q.tail, q.phase, q.interrupts, q.vector);
    a.require(q.size <= kMostAdmin && q.vector <= kMaxQueues, "an NVMe completion queue");
    a.require(q.size == 0 || (q.head < q.size && q.tail < q.size), "an NVMe completion queue's place");
    std::size_t waiting = a.count(q.waiting.size(), std::size_t{kMostAdmin} * (kMaxQueues + 1), "NVMe completions");
    if (a.loading()) q.waiting.resize(waiting);
    for (nvme::Completion& c : q.waiting) {
      a(c.result, c.reserved, c.sqHead, c.sqId, c.id, c.status);
      a.require(c.sqId <= kMaxQueues, "an NVMe completion");
    }
  }
  for (const SubmissionQueue& q : submissions_)
    a.require(q.size == 0 || (q.cq <= kMaxQueues && completions_[q.cq].size != 0), "an NVMe queue without completions");
}

void NvmeController::transfer(Archive& a) {
  PciFunction::transfer(a);
  std::lock_guard lock(mutex_);
  a(cc_, csts_, aqa_, masked_, asq_, acq_, features_);
  a.require((csts_ & nvme::kStsReady) == 0 || (cc_ & nvme::kCcEnable) != 0, "an NVMe controller's status");
  transferQueues(a);
  std::size_t events = a.count(asyncEvents_.size(), kAsyncLimit + 1, "NVMe events");
  if (a.loading()) asyncEvents_.resize(events);
  for (std::uint16_t& id : asyncEvents_) a(id);
  if (a.loading() && !a.ok()) {
    cc_ = csts_ = 0;
    submissions_ = {};
    completions_ = {};
    asyncEvents_.clear();
  }
}

}  // namespace lodge
