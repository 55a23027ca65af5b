// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "storage/scsi_unit.h"
#include "virtio/queue_set.h"

namespace lodge::virtio {

/// The SCSI host device (5.6): target 0 with a logical unit for each drive. Queue 0 is for task management, queue 1 for
/// events (of which there are none), the others take commands. Requests are begun on the notifying vCPU's thread and
/// end on the units'.
class ScsiDevice : public QueuedDevice {
 public:
  static constexpr unsigned kMaxUnits = 64;

  /// `requestQueues` 1 or more.
  ScsiDevice(GuestMemory& memory, unsigned requestQueues);
  ~ScsiDevice() override;

  /// Before the machine runs; returns its number, which are given in order from 0 on.
  unsigned add(std::unique_ptr<ScsiUnit> unit);
  DeviceType type() const override { return DeviceType::scsi; }
  std::uint64_t features() const override { return 0; }
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  /// Both return when no request of the queue (of any) is under way.
  void disableQueue(unsigned queue) override;
  void reset() override;
  void notify(unsigned queue) override;
  int quiesce() override;
  bool isQuiet() override;
  void transfer(state::Archive& a) override;

 private:
  struct Request;
  struct Management {
    Chain chain;
    std::vector<iovec> answer;
    std::uint8_t response;
  };
  void start(unsigned queue, Chain chain);
  void reportLuns(const std::shared_ptr<Request>& request);
  void end(Request& request, const ScsiResult& result, std::uint8_t response);
  void manage(Chain chain);
  void answerManagement(Management management);
  void landed(unsigned queue);
  void landLocked(unsigned queue);

  std::vector<std::unique_ptr<ScsiUnit>> units_;
  std::mutex flightMutex_;
  std::condition_variable landed_;
  unsigned inFlight_ = 0;
  std::vector<unsigned> inFlightOf_;  ///< by queue
  std::vector<Management> waiting_;   ///< for the requests before them to end
};

}  // namespace lodge::virtio
