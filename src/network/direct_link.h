// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "net/message_net.h"
#include "network/direct_ports.h"
#include "network/helper_client.h"

namespace lodge::network {

/// A machine's port whose frames go between a tap device of its own and the host's bridge, past the switch; the machine
/// has the device's other end. While it is held, a packet socket on the device takes all to the switch and back, as
/// from any other port: for what a bridge cannot do. I/O thread.
class DirectLink : public NetBackend {
 public:
  struct Plug {
    unsigned number = 1, queues = 1;
    bool guard = true;
    UniqueFd existing;  ///< a queue of a device that is there
  };
  struct Made {
    std::unique_ptr<DirectLink> link;
    std::vector<UniqueFd> queues;  ///< for the machine; none of a device that was there
  };
  /// Held, until set() says otherwise. Errors: the helper's.
  static Result<Made> make(EventLoop& loop, HelperClient& helper, Plug plug);
  ~DirectLink() override;

  /// Errors: the helper's; then all is as before.
  Status set(const DirectRules& rules);
  bool held() const { return rules_.held; }
  const MacAddress& mac() const { return rules_.mac; }
  /// Whether its machine said that the host's kernel moves the frames.
  bool byVhost() const { return byVhost_; }
  void setByVhost(bool by) { byVhost_ = by; }
  unsigned number() const { return number_; }
  const std::string& tap() const { return tap_; }
  /// What passed the device, as the kernel counted; in: from the machine.
  struct Counters {
    std::uint64_t framesIn = 0, bytesIn = 0, framesOut = 0, bytesOut = 0;
  };
  Counters counters() const;

  void setReceiver(Receiver receiver) override;
  void receiverReady() override {}
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override {
    if (switched_) switched_->send(frame, offload);
  }
  bool supportsOffload() const override { return true; }

 private:
  DirectLink(EventLoop& loop, HelperClient& helper) : loop_(loop), helper_(helper) {}
  Status listen(bool on);

  EventLoop& loop_;
  HelperClient& helper_;
  std::string tap_;
  unsigned index_ = 0, number_ = 0;
  bool byVhost_ = false;
  UniqueFd packets_;
  DirectRules rules_;
  Receiver receiver_;
  std::unique_ptr<MessageNet> switched_;  ///< while it is held
};

}  // namespace lodge::network
