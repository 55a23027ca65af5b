// SPDX-License-Identifier: Apache-2.0
#include "network/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/text.h"
#include "network/dhcp.h"
#include "network/dns.h"
#include "network/sni.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kFlowIdle = 600 * kNanosecondsPerSecond;
constexpr Nanoseconds kQueryPatience = 10 * kNanosecondsPerSecond;
constexpr Nanoseconds kShortestName = 30 * kNanosecondsPerSecond, kLongestName = 86400 * kNanosecondsPerSecond;
constexpr Nanoseconds kLogAgain = 10 * kNanosecondsPerSecond;
constexpr std::size_t kMostFlows = 16384, kMostQueries = 256, kMostAddresses = 4096, kMostNames = 16;
constexpr std::size_t kMostHello = 16384;

using Bytes = std::span<const std::uint8_t>;

std::string_view protocolName(std::uint8_t p) {
  return p == protocol::kTcp                             ? "tcp"
         : p == protocol::kUdp                           ? "udp"
         : p == protocol::kIcmp || p == protocol::kIcmp6 ? "icmp"
                                                         : "ip";
}

}  // namespace

EgressFilter::EgressFilter(std::shared_ptr<const EgressPolicy> policy, const Clock& clock, Log log)
    : policy_(std::move(policy)), clock_(clock), log_(std::move(log)) {}

void EgressFilter::setPolicy(std::shared_ptr<const EgressPolicy> policy) {
  policy_ = std::move(policy);
  flows_.clear();  // all are judged anew
}

bool EgressFilter::inside(const IpAddress& address) const {
  if (address.multicast() || address.linkLocal() || address.unspecified()) return true;
  return std::any_of(policy_->inside.begin(), policy_->inside.end(),
                     [&](const IpBlock& block) { return block.contains(address); });
}

/// With a TLS name it stands for all that look-ups said: an address may serve many names.
EgressFilter::Verdict EgressFilter::judge(const FlowKey& key, const std::string* tlsName) const {
  auto names = names_.find(key.to);
  for (const EgressRule& rule : policy_->rules) {
    if (!rule.fits(key.protocol, key.toPort)) continue;
    bool fits = true;
    if (rule.block) fits = rule.block->contains(key.to);
    if (rule.wantsName()) {
      if (tlsName) {
        fits = rule.fitsName(*tlsName);
        // A name that nobody looked up does not open an address.
        if (fits && rule.allow) {
          fits = names != names_.end() && std::any_of(names->second.begin(), names->second.end(),
                                                      [&](const auto& n) { return rule.fitsName(n.first); });
        }
      } else {
        fits = names != names_.end() && std::any_of(names->second.begin(), names->second.end(), [&](const auto& n) {
                 return n.second > clock_.now() && rule.fitsName(n.first);
               });
      }
    }
    if (fits) return {rule.allow, &rule};
  }
  return {policy_->allowed, nullptr};
}

bool EgressFilter::refuse(const FlowKey& key, const Verdict& verdict, const std::string& tlsName) {
  ++refused_;
  std::string what = fmt::format("{} {}", protocolName(key.protocol), toText(key.to));
  if (key.toPort != 0) what += fmt::format(" port {}", key.toPort);
  if (!tlsName.empty()) what += " (" + inQuotes(tlsName) + " by TLS)";
  Nanoseconds now = clock_.now();
  // A machine that insists is told of now and then.
  auto [entry, isNew] = logged_.try_emplace(what, now);
  if (!isNew && now - entry->second < kLogAgain) return false;
  entry->second = now;
  if (logged_.size() > 1024) logged_.clear();
  log_(what, verdict.rule ? ruleText(*verdict.rule) : "default");
  return false;
}

void EgressFilter::tidy() {
  Nanoseconds now = clock_.now();
  if (flows_.size() >= kMostFlows) {
    std::erase_if(flows_, [&](const auto& f) { return now - f.second.seen > kFlowIdle; });
    if (flows_.size() >= kMostFlows) flows_.clear();  // judged anew, which costs its own machine some time
  }
}

bool EgressFilter::allows(Bytes frame, const Packet& p) {
  if (policy_->empty() || !p.ip) return true;
  FlowKey key{p.protocol, p.to, p.fromPort, p.toPort};
  if (p.toPort == kDnsPort && p.payload != 0) {
    Bytes data = frame.subspan(p.payload, p.end - p.payload);
    if (p.protocol == protocol::kUdp) noteQuery(data, key);
    if (p.protocol == protocol::kTcp && data.size() > 2) noteQuery(data.subspan(2), key);
  }
  if (inside(p.to)) return true;
  if (!p.from.v6 && p.protocol == protocol::kUdp && p.toPort == kDhcpServerPort) return true;
  Nanoseconds now = clock_.now();
  if (!p.firstFragment) return judge(key, nullptr).allow || policy_->allowed;
  auto it = flows_.find(key);
  bool opening = p.protocol == protocol::kTcp && p.payload != 0 && (frame[p.transport + 13] & 0x12) == 2;
  if (it == flows_.end() || opening || now - it->second.seen > kFlowIdle) {
    tidy();
    Verdict verdict = judge(key, nullptr);
    Flow flow;
    flow.allowed = verdict.allow;
    flow.helloWanted = p.protocol == protocol::kTcp && std::any_of(policy_->rules.begin(), policy_->rules.end(),
                                                                   [](const auto& r) { return r.wantsName(); });
    if (opening) {
      flow.start = loadBe<std::uint32_t>(&frame[p.transport + 4]) + 1;
      flow.started = true;
    }
    it = flows_.insert_or_assign(key, std::move(flow)).first;
    it->second.seen = now;
    if (!verdict.allow) return refuse(key, verdict, {});
  }
  Flow& flow = it->second;
  if (!flow.allowed) {
    // Judged again now and then: a look-up may have come meanwhile.
    if (now - flow.seen < kNanosecondsPerSecond / 2) {
      ++refused_;
      return false;
    }
    flow.seen = now;
    Verdict verdict = judge(key, nullptr);
    flow.allowed = verdict.allow;
    if (!verdict.allow) return refuse(key, verdict, {});
  }
  flow.seen = now;
  return !flow.helloWanted || flow.helloSeen || checkHello(frame, p, key, flow);
}

/// Puts the stream's beginning together from segments that follow each other, until it is known whether it is TLS.
bool EgressFilter::checkHello(Bytes frame, const Packet& p, const FlowKey& key, Flow& flow) {
  Bytes data = frame.subspan(p.payload, p.end - p.payload);
  if (data.empty() || p.payload == 0) return true;
  std::uint32_t sequence = loadBe<std::uint32_t>(&frame[p.transport + 4]);
  if (!flow.started) {
    flow.start = sequence;
    flow.started = true;
  }
  std::uint32_t offset = sequence - flow.start;
  // What comes out of order waits for its turn at the sender.
  if (offset > flow.beginning.size()) return false;
  std::size_t known = flow.beginning.size() - offset;
  if (known >= data.size()) return true;
  flow.beginning.insert(flow.beginning.end(), data.begin() + static_cast<std::ptrdiff_t>(known), data.end());
  if (flow.beginning.size() < 6 && flow.beginning[0] == 22) return true;
  auto hello = parseTlsHello(flow.beginning);
  if (hello && !hello->whole && hello->name.empty() && flow.beginning.size() < kMostHello) return true;
  flow.helloSeen = true;
  flow.beginning = {};
  if (!hello || hello->name.empty()) return true;
  Verdict verdict = judge(key, &hello->name);
  if (verdict.allow) return true;
  flow.allowed = false;
  flow.seen = clock_.now();
  return refuse(key, verdict, hello->name);
}

void EgressFilter::noteQuery(Bytes message, const FlowKey& flow) {
  auto question = parseDnsQuestion(message);
  if (!question || question->response || (question->type != dns::kA && question->type != dns::kAaaa)) return;
  Nanoseconds now = clock_.now();
  while (!queries_.empty() && (queries_.size() >= kMostQueries || now - queries_.front().sent > kQueryPatience))
    queries_.pop_front();
  queries_.push_back({flow, question->id, question->name, now});
}

void EgressFilter::observe(Bytes frame, const Packet& p) {
  if (policy_->empty() || p.fromPort != kDnsPort || p.payload == 0) return;
  FlowKey flow{p.protocol, p.from, p.toPort, p.fromPort};
  Bytes data = frame.subspan(p.payload, p.end - p.payload);
  if (p.protocol == protocol::kUdp) return noteAnswer(data, flow);
  // By TCP an answer is one segment, or several of which the first has the addresses.
  if (data.size() > 2) noteAnswer(data.subspan(2), flow);
}

void EgressFilter::noteAnswer(Bytes message, const FlowKey& flow) {
  auto question = parseDnsQuestion(message);
  if (!question || !question->response || question->code != dns::kNoError) return;
  auto query = std::find_if(queries_.begin(), queries_.end(), [&](const Query& q) {
    return q.flow == flow && q.id == question->id && q.name == question->name;
  });
  if (query == queries_.end()) return;
  // The names that lead to an address: the one asked for, and those that it is an alias of.
  std::vector<std::string> chain = {question->name};
  Nanoseconds now = clock_.now();
  for (const DnsRecord& r : parseDnsAnswers(message, *question)) {
    bool known = std::find(chain.begin(), chain.end(), r.name) != chain.end();
    if (!known) continue;
    if (r.type == dns::kCname && chain.size() < kMostNames) chain.push_back(r.target);
    if (r.type != dns::kA && r.type != dns::kAaaa) continue;
    Nanoseconds hold = std::clamp<Nanoseconds>(Nanoseconds{r.ttl} * kNanosecondsPerSecond, kShortestName, kLongestName);
    // Only the name that was asked for opens the address: an alias's target may be anybody's.
    remember(r.address, question->name, now + hold);
  }
}

void EgressFilter::remember(const IpAddress& address, const std::string& name, Nanoseconds until) {
  Nanoseconds now = clock_.now();
  if (names_.size() >= kMostAddresses && names_.count(address) == 0) {
    for (auto entry = names_.begin(); entry != names_.end();) {
      std::erase_if(entry->second, [&](const auto& n) { return n.second <= now; });
      entry = entry->second.empty() ? names_.erase(entry) : std::next(entry);
    }
    if (names_.size() >= kMostAddresses) names_.erase(names_.begin());
  }
  auto& names = names_[address];
  if (names.size() >= kMostNames) std::erase_if(names, [&](const auto& n) { return n.second <= now; });
  if (names.size() < kMostNames || names.count(name) != 0) names[name] = std::max(names[name], until);
}

}  // namespace lodge::network
