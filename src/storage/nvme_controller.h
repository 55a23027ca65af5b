// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "device/pci.h"
#include "image/disk.h"
#include "memory/guest_memory.h"
#include "storage/guest_buffers.h"
#include "storage/nvme_defs.h"

namespace lodge {

/// An NVMe 1.4 controller with one namespace: an admin queue pair and up to kMaxQueues I/O queue pairs, PRP lists,
/// flush, write zeroes and deallocation; MSI-X with a vector for each queue, INTA# without. BAR 0 has registers and
/// doorbells. Doorbells are served on the vCPU's thread, disk requests end on any thread.
class NvmeController : public PciFunction, private IoDevice {
 public:
  static constexpr unsigned kMaxQueues = 16;
  static constexpr std::uint32_t kMaxEntries = 1024;

  /// `serial`: up to 20 characters.
  NvmeController(GuestMemory& memory, std::shared_ptr<Disk> disk, std::string serial);
  ~NvmeController() override;

  void reset() override;
  /// Returns when no request is under way, after Disk::settle(): 0, or a positive errno value. While no vCPU runs.
  int quiesce();
  /// Whether no request is under way that reads or writes guest memory. Waits for nothing.
  bool isQuiet();
  /// Saves or loads it, after quiesce().
  void transfer(state::Archive& a) override;
  /// BAR 0, for tests.
  IoDevice& registers() { return *this; }

 private:
  static constexpr unsigned kBlock = 512;
  static constexpr std::uint64_t kPage = 4096;
  static constexpr unsigned kMdts = 8;  ///< a transfer's most pages, as a power of two: 1 MiB
  static constexpr unsigned kAsyncLimit = 3;

  struct SubmissionQueue {
    std::uint64_t base = 0;
    std::uint32_t size = 0, head = 0, tail = 0;  ///< size 0: there is none
    std::uint16_t cq = 0;
    std::uint32_t running = 0;  ///< commands without an entry in the completion queue
    bool serving = false;       ///< a thread is in serve()
  };
  struct CompletionQueue {
    std::uint64_t base = 0;
    std::uint32_t size = 0, head = 0, tail = 0;
    bool phase = true, interrupts = false;
    std::uint16_t vector = 0;
    std::deque<nvme::Completion> waiting;  ///< for room
  };
  struct Fetched {
    unsigned sq;
    nvme::Command command;
  };
  struct Answer {
    std::uint16_t status = 0;
    std::uint32_t result = 0;
    bool later = false;  ///< asynchronous: complete() comes from elsewhere, or never
  };

  // nvme_controller.cpp: registers and queues
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  std::uint32_t readRegisterLocked(unsigned offset) const;
  void writeRegister(unsigned offset, std::uint32_t value);
  void configure(std::uint32_t value);
  void enableLocked();
  void disable(std::unique_lock<std::mutex>& lock);
  void doorbell(unsigned index, std::uint32_t value);
  void serve(unsigned sq);
  void run(const Fetched& fetched);
  /// Any thread, without the mutex.
  void complete(unsigned sq, std::uint16_t id, std::uint16_t status, std::uint32_t result = 0);
  void postLocked(CompletionQueue& queue);
  void interruptLocked(const CompletionQueue& queue);
  void updateIntxLocked();
  // nvme_admin.cpp
  Answer runAdmin(const nvme::Command& c);
  Answer createQueue(const nvme::Command& c);
  Answer deleteQueue(const nvme::Command& c);
  Answer identify(const nvme::Command& c);
  Answer logPage(const nvme::Command& c);
  Answer features(const nvme::Command& c);
  std::vector<std::uint8_t> controllerData() const;
  std::vector<std::uint8_t> namespaceData() const;
  std::uint16_t giveData(const nvme::Command& c, std::vector<std::uint8_t> data, std::uint64_t length);
  // nvme_io.cpp
  Answer runIo(unsigned sq, const nvme::Command& c);
  Answer transfer(unsigned sq, const nvme::Command& c);
  Answer zero(unsigned sq, const nvme::Command& c);
  Answer deallocate(unsigned sq, const nvme::Command& c);
  std::uint16_t mapPrps(const nvme::Command& c, std::uint64_t length, GuestBuffers& buffers);
  std::uint64_t blocks() const { return disk_->sizeBytes() / kBlock; }
  void transferQueues(state::Archive& a);
  void begun();
  void ended();

  GuestMemory& memory_;
  std::shared_ptr<Disk> disk_;
  std::string serial_;
  std::mutex mutex_;
  std::condition_variable landed_;
  unsigned inFlight_ = 0;  ///< requests to the disk
  std::uint32_t cc_ = 0, csts_ = 0, aqa_ = 0, masked_ = 0;
  std::uint64_t asq_ = 0, acq_ = 0;
  std::array<SubmissionQueue, kMaxQueues + 1> submissions_;
  std::array<CompletionQueue, kMaxQueues + 1> completions_;
  std::array<std::uint32_t, 16> features_{};
  std::vector<std::uint16_t> asyncEvents_;  ///< commands that wait for something to happen
};

}  // namespace lodge
