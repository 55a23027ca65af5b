// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <string>
#include <vector>

#include "image/disk.h"
#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A disk (virtio 1.2, 5.2): read, write, flush, discard, write zeroes, identification; several queues. Requests start
/// on the notifying vCPU's thread and end on the disk's threads.
class BlockDevice : public QueuedDevice {
 public:
  BlockDevice(GuestMemory& memory, std::unique_ptr<Disk> disk, std::string serial, unsigned queues);
  ~BlockDevice() override;

  DeviceType type() const override { return DeviceType::block; }
  std::uint64_t features() const override;
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  /// Both return when no request of the queue (of any) is under way.
  void disableQueue(unsigned queue) override;
  void reset() override;
  void notify(unsigned queue) override;
  int quiesce() override;
  bool isQuiet() override;

  std::uint64_t requests() const { return requests_; }

 private:
  struct Request;
  void start(unsigned queue, Chain chain);
  void begin(std::shared_ptr<Request> request);
  void startRange(const std::shared_ptr<Request>& request, bool zeroes);
  void end(Request& request, std::uint8_t status);
  bool inRange(std::uint64_t sector, std::uint64_t bytes) const;

  std::unique_ptr<Disk> disk_;
  std::string serial_;
  std::mutex flightMutex_;
  std::condition_variable landed_;
  unsigned inFlight_ = 0;
  std::vector<unsigned> inFlightOf_;  ///< by queue
  std::atomic<std::uint64_t> requests_{0};
};

}  // namespace lodge::virtio
