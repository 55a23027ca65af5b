// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A network card (virtio 1.2, 5.1): several queue pairs, mergeable receive buffers, checksum and segmentation offload
/// (in software where the backend has none), control queue. What belongs to a flow arrives on the queue pair that the
/// driver sends that flow on (5.1.6.5.6). All work is done on the I/O thread; a notification only wakes it. Where the
/// backend has a VhostNet, the card hands the driver's buffers to it and takes them back (net_by_vhost.cpp).
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
  void disableQueue(unsigned queue) override;
  int quiesce() override;
  /// Whether the host's kernel moves its frames.
  bool usesVhost() const { return byVhost_ != nullptr; }
  void transfer(state::Archive& a) override;

  unsigned pairs() const { return maxPairs_; }
  /// Of one queue pair.
  std::uint64_t framesSent(unsigned pair) const { return pairStates_[pair].sent; }
  std::uint64_t framesReceived(unsigned pair) const { return pairStates_[pair].received; }
  /// Those that the driver's buffers were too small for.
  std::uint64_t framesLost(unsigned pair) const { return pairStates_[pair].lost; }

 protected:
  std::vector<const Chain*> held(unsigned queue) const override;
  bool goOnLater(unsigned) override {
    wake();
    return true;
  }

 private:
  struct Header;
  struct ByVhost;
  struct PairState {
    std::vector<Chain> spare;  ///< popped for a frame that then did not fit
    std::size_t unsignalled =
        0;  ///< buffers of frames that were sent, and of which the driver shall find out by itself
    std::atomic<std::uint64_t> sent{0}, received{0}, lost{0};
  };
  static constexpr std::size_t kFlows = 1024;
  static constexpr std::uint8_t kUnknown = 0xff;
  unsigned controlQueue() const;
  void wake();
  void work();
  void control();
  void transmit(unsigned queue);
  bool copyFrame(const Chain& chain);
  void sendFrame(unsigned pair);
  void signalSent();
  bool accepts(const FrameOffload& offload) const;
  bool receive(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  /// A frame that the driver can take; under workMutex_.
  bool deliver(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  unsigned pairFor(std::span<const std::uint8_t> frame) const;
  void forgetFlows() { flows_.fill(kUnknown); }
  enum class Room : std::uint8_t { enough, notYet, never };
  Room popBuffers(unsigned queue, std::size_t bytes, std::vector<Chain>& out);
  bool command(const Chain& chain);
  bool wanted(std::span<const std::uint8_t> frame) const;

  // By vhost-net; all under workMutex_.
  void workByVhost();
  void startVhost();
  void haltVhost();
  void applyFilter();
  void feed(unsigned queue);
  bool handOver(unsigned queue, Chain& chain);
  void reap(unsigned pair);

  GuestMemory& memory_;
  EventLoop& loop_;
  std::unique_ptr<NetBackend> backend_;
  MacAddress mac_;
  unsigned maxPairs_;
  std::atomic<unsigned> pairs_{1};
  std::atomic<bool> workWanted_{false}, live_{false};
  bool promiscuous_ = true, allMulticast_ = false;
  std::vector<MacAddress> accepted_;
  std::vector<std::uint8_t> buffer_;
  std::deque<PairState> pairStates_;
  std::array<std::uint8_t, kFlows> flows_{};  // by flowHash(): the pair that its frames were sent on last
  std::recursive_mutex workMutex_;            // work against reset; a backend may answer a frame while it is sent
  std::unique_ptr<ByVhost> byVhost_;          // null: frames go through send() and receive()
  std::unique_ptr<Timer> signalTimer_;        // armed (signalsLater_): signalSent()
  bool signalsLater_ = false;
  std::shared_ptr<std::atomic<bool>> alive_ = std::make_shared<std::atomic<bool>>(true);
};

}  // namespace lodge::virtio
