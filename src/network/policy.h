// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "network/packet.h"
#include "network/policy_rule.h"

namespace lodge::network {

/// The rules of a network, in their order: the first that fits decides.
struct EgressPolicy {
  std::vector<EgressRule> rules;
  bool allowed = true;          ///< what no rule decides
  std::vector<IpBlock> inside;  ///< the network's own blocks, which are no egress
  bool empty() const { return rules.empty() && allowed; }
};

/// What one machine may reach. It watches the machine's own look-ups, so that rules with domain names know which
/// addresses they mean, and the server names in TLS hellos.
class EgressFilter {
 public:
  /// Told of each refusal: what was to be reached, and the rule ("default" if none decided).
  using Log = std::function<void(const std::string& what, const std::string& rule)>;
  EgressFilter(std::shared_ptr<const EgressPolicy> policy, const Clock& clock, Log log);

  void setPolicy(std::shared_ptr<const EgressPolicy> policy);
  /// Whether a frame from the machine may go on.
  bool allows(std::span<const std::uint8_t> frame, const Packet& packet);
  /// A frame to the machine; answers to its look-ups are remembered.
  void observe(std::span<const std::uint8_t> frame, const Packet& packet);
  std::uint64_t refused() const { return refused_; }

 private:
  struct FlowKey {
    std::uint8_t protocol = 0;
    IpAddress to;
    std::uint16_t fromPort = 0, toPort = 0;
    auto operator<=>(const FlowKey&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Flow {
    bool allowed = false, helloSeen = false, helloWanted = false;
    Nanoseconds seen = 0;
    std::uint32_t start = 0;  ///< sequence number of the first data byte
    bool started = false;
    std::vector<std::uint8_t> beginning;  ///< of the stream, until its hello is whole
  };
  struct Query {
    FlowKey flow;
    std::uint16_t id = 0;
    std::string name;
    Nanoseconds sent = 0;
  };
  struct Verdict {
    bool allow = false;
    const EgressRule* rule = nullptr;
  };

  bool inside(const IpAddress& address) const;
  Verdict judge(const FlowKey& key, const std::string* tlsName) const;
  bool refuse(const FlowKey& key, const Verdict& verdict, const std::string& tlsName);
  bool checkHello(std::span<const std::uint8_t> frame, const Packet& packet, const FlowKey& key, Flow& flow);
  void noteQuery(std::span<const std::uint8_t> message, const FlowKey& flow);
  void noteAnswer(std::span<const std::uint8_t> message, const FlowKey& flow);
  void remember(const IpAddress& address, const std::string& name, Nanoseconds until);
  void tidy();

  std::shared_ptr<const EgressPolicy> policy_;
  const Clock& clock_;
  Log log_;
  std::map<FlowKey, Flow> flows_;
  std::deque<Query> queries_;
  std::map<IpAddress, std::map<std::string, Nanoseconds>> names_;  ///< and until when they hold
  std::uint64_t refused_ = 0;
  std::map<std::string, Nanoseconds> logged_;
};

}  // namespace lodge::network
