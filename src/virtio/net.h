// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A network card (virtio 1.2, 5.1): several queue pairs, mergeable receive buffers, checksum and segmentation offload
/// (in software where the backend has none), control queue. All work is done on the I/O thread; a notification only
/// wakes it.
class NetDevice : public QueuedDevice {
 public:
  NetDevice(GuestMemory& memory, EventLoop& loop, std::unique_ptr<NetBackend> backend, const MacAddress& mac,
            unsigned pairs);
  ~NetDevice() override;

  DeviceType type() const override { return DeviceType::net; }
  std::uint64_t features() const override;
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  void activate(std::uint64_t features) override;
  void reset() override;
  void notify(unsigned queue) override;
  void transfer(state::Archive& a) override;

  std::uint64_t framesSent() const { return sent_; }
  std::uint64_t framesReceived() const { return received_; }

 protected:
  std::vector<const Chain*> held(unsigned queue) const override;

 private:
  struct Header;
  unsigned controlQueue() const;
  void work();
  void transmit(unsigned queue);
  void sendFrame(const Chain& chain);
  bool accepts(const FrameOffload& offload) const;
  bool receive(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  /// A frame that the driver can take; under workMutex_.
  bool deliver(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  bool popBuffers(unsigned queue, std::size_t bytes, std::vector<Chain>& out);
  void control(unsigned queue);
  bool command(const Chain& chain);
  bool wanted(std::span<const std::uint8_t> frame) const;

  EventLoop& loop_;
  std::unique_ptr<NetBackend> backend_;
  MacAddress mac_;
  unsigned maxPairs_;
  std::atomic<unsigned> pairs_{1};
  std::atomic<bool> workWanted_{false}, live_{false};
  bool promiscuous_ = true, allMulticast_ = false;
  std::vector<MacAddress> accepted_;
  std::vector<std::uint8_t> buffer_;
  std::vector<Chain> spare_;  // popped for a frame that then did not fit
  std::atomic<std::uint64_t> sent_{0}, received_{0};
  std::recursive_mutex workMutex_;  // work against reset; a backend may answer a frame while it is sent
  std::shared_ptr<std::atomic<bool>> alive_ = std::make_shared<std::atomic<bool>>(true);
};

}  // namespace lodge::virtio
