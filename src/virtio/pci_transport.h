// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "device/pci.h"
#include "virtio/device.h"
#include "virtio/queue_doorbells.h"

namespace lodge::virtio {

/// A virtio device as a PCI function (virtio 1.2, 4.1), without the legacy interface: BAR 0 holds the common
/// configuration, ISR, device configuration and notification areas; MSI-X in BAR 2 with a vector for each queue and one
/// for configuration changes; INTA# where the driver does not use MSI-X.
class PciTransport : public PciFunction, private Transport, private IoDevice {
 public:
  PciTransport(std::unique_ptr<Device> device, std::string name);
  ~PciTransport() override;

  Device& device() { return *device_; }
  /// Notifications may be events. Before the function is plugged.
  void useDoorbells(Doorbells& doorbells, EventLoop& loop);
  void reset() override;
  void transfer(state::Archive& a) override;
  /// A loaded device looks at its queues: what the driver asked before may be waiting. Before vCPUs run; I/O thread.
  void resume();

 private:
  struct QueueState {
    QueueSetup setup;
    std::uint16_t vector = kNoVector;
    bool enabled = false;
  };

  // Transport
  void signalQueue(unsigned queue) override;
  void signalConfig() override;
  void needsReset(unsigned queue) override;
  bool goOnLater(unsigned queue) override;
  // IoDevice: BAR 0
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  // The configuration access capability (4.1.4.9)
  void configAboutToBeRead(unsigned offset, unsigned size) override;
  void configWritten(unsigned offset, unsigned size) override;
  void barPlaced(unsigned slot, std::optional<std::uint64_t> base) override;

  void addCapabilities();
  std::uint64_t offeredFeatures() const;
  std::uint32_t readCommonLocked(std::uint64_t offset, unsigned size);
  void writeCommonLocked(std::uint64_t offset, unsigned size, std::uint32_t value);
  void writeQueueLocked(std::uint64_t offset, unsigned size, std::uint32_t value);
  void enableQueueLocked(QueueState& queue);
  void setStatusLocked(std::uint8_t value);
  void resetLocked();
  void transferQueue(state::Archive& a, QueueState& queue) const;
  void applyLoaded(state::Archive& a);
  void notify(unsigned queue);
  void updateDoorbellsLocked();
  void interrupt(std::uint16_t vector, std::uint8_t isrBit);
  bool accessWindow(std::uint64_t& offset, unsigned& size);

  std::unique_ptr<Device> device_;
  std::unique_ptr<QueueDoorbells> doorbells_;  ///< null: every notification is a device access
  std::mutex mutex_;                           // everything below but what is atomic
  std::vector<QueueState> queues_;
  std::vector<std::atomic<std::uint16_t>> vectors_;  // of the queues, readable without the mutex
  std::atomic<std::uint16_t> configVector_{kNoVector};
  std::mutex intxMutex_;  // isr_ and INTA# change together
  std::atomic<std::uint8_t> isr_{0}, status_{0}, generation_{0};
  std::uint32_t deviceFeatureSelect_ = 0, driverFeatureSelect_ = 0;
  std::uint64_t driverFeatures_ = 0;
  std::uint16_t queueSelect_ = 0;
  std::uint8_t accessCapability_ = 0;
  std::atomic<bool> windowClosed_{false};
};

}  // namespace lodge::virtio
