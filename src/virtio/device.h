// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "state/archive.h"
#include "virtio/defs.h"
#include "virtio/virtqueue.h"

namespace lodge::virtio {

/// How a device reaches its driver. Any thread.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void signalQueue(unsigned queue) = 0;
  virtual void signalConfig() = 0;
  /// The driver broke the rules on a queue: DEVICE_NEEDS_RESET is set, the driver is told, a line is logged once.
  virtual void needsReset(unsigned queue) = 0;
  /// Has notify() called for the queue later on, by the I/O thread and after what else that has to do. False: it is not
  /// going to be called.
  virtual bool goOnLater(unsigned) { return false; }
};

/// A virtio device without its transport. The transport calls it on vCPU threads: configuration and life cycle one call
/// at a time, notify() for different queues at once.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceType type() const = 0;
  /// Bits of its own type; the transport adds those of rings and version.
  virtual std::uint64_t features() const = 0;
  virtual unsigned queueCount() const = 0;
  virtual std::uint16_t maxQueueSize() const { return 256; }
  /// Device configuration space: any offset and size 1, 2 or 4 (8 is split); zero beyond its end.
  virtual std::uint32_t readConfig(std::uint64_t offset, unsigned size) = 0;
  virtual void writeConfig(std::uint64_t, unsigned, std::uint32_t) {}

  void attach(Transport& transport) { transport_ = &transport; }
  /// DRIVER_OK: the features that the driver took.
  virtual void activate(std::uint64_t features) = 0;
  /// The driver enabled or reset one queue.
  virtual void enableQueue(unsigned queue, const QueueSetup& setup, bool& accepted) = 0;
  virtual void disableQueue(unsigned queue) = 0;
  /// Back to power-up; on return no request of before touches guest memory any more.
  virtual void reset() = 0;
  virtual void notify(unsigned queue) = 0;
  /// Returns when no request is under way on another thread, and what was written to disks is on stable storage, their
  /// images as they would be closed (Disk::settle()): 0, or a positive errno value. While no vCPU runs; I/O thread.
  virtual int quiesce() { return 0; }
  /// Whether no request is under way that reads or writes guest memory. Waits for nothing.
  virtual bool isQuiet() { return true; }
  /// Saves or loads the device, after quiesce(); loading: after activate() and enableQueue(), as the driver left it.
  virtual void transfer(state::Archive&) {}

 protected:
  Transport* transport_ = nullptr;
};

/// readConfig() over a plain structure.
std::uint32_t readConfigBytes(const void* config, std::size_t length, std::uint64_t offset, unsigned size);

}  // namespace lodge::virtio
