// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "virtio/queue_set.h"

namespace lodge::virtio {

/// Random bytes from the host (virtio 1.2, 5.4).
class EntropyDevice : public QueuedDevice {
 public:
  explicit EntropyDevice(GuestMemory& memory) : QueuedDevice(memory, 1) {}
  DeviceType type() const override { return DeviceType::entropy; }
  std::uint64_t features() const override { return 0; }
  std::uint16_t maxQueueSize() const override { return 64; }
  std::uint32_t readConfig(std::uint64_t, unsigned) override { return 0; }
  void notify(unsigned queue) override;
};

}  // namespace lodge::virtio
