// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/fake_clock.h"
#include "network/capture.h"
#include "network/definition.h"
#include "network/dhcp.h"
#include "network/dhcp_client.h"
#include "network/dns.h"
#include "network/dns_by_tcp.h"
#include "network/frame_builder.h"
#include "network/guard.h"
#include "network/host_leg.h"
#include "network/mac_translator.h"
#include "network/policy.h"
#include "network/port.h"
#include "network/proxy_messages.h"
#include "network/services.h"
#include "network/sni.h"
#include "network/switch.h"
#include "network/tunnel.h"

namespace {

using namespace lodge;
using namespace lodge::network;

/// A card that takes everything and gives nothing.
class Sink : public NetBackend {
 public:
  void setReceiver(Receiver receiver) override { receive = std::move(receiver); }
  void receiverReady() override {}
  void send(std::span<const std::uint8_t>, const FrameOffload&) override {}
  bool supportsOffload() const override { return true; }
  Receiver receive;
};

void parsers(std::span<const std::uint8_t> bytes) {
  (void)parseTlsHello(bytes);
  if (auto question = parseDnsQuestion(bytes)) {
    (void)parseDnsAnswers(bytes, *question);
    (void)makeDnsAnswer(bytes, *question, 0, {});
    (void)makeDnsTruncated(bytes, *question);
    (void)addressOfReverse(question->name);
  }
  std::size_t length = 0;
  SocksGreeting greeting;
  SocksRequest request;
  HttpProxyRequest http;
  if (readSocksGreeting(bytes, length, greeting) == Reading::whole && length > bytes.size()) std::abort();
  if (readSocksRequest(bytes, length, request) == Reading::whole && length > bytes.size()) std::abort();
  if (readHttpProxyRequest(bytes, length, http) == Reading::whole && length > bytes.size()) std::abort();
  (void)readSocksDatagram(bytes);
  (void)parseDhcpOffer(bytes, {});
  StreamFrames stream;
  for (std::size_t at = 0;
       at < bytes.size() && stream.add(bytes.subspan(at, std::min<std::size_t>(7, bytes.size() - at))); at += 7) {
    while (stream.next()) {
    }
  }
  (void)isNetworkName(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  (void)CaptureFormat::packet(0, 1, bytes, CaptureFormat::Direction::in, 64);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  (void)blockFrom(text);
  (void)egressRuleFrom(text);
  Json json = Json::parse(text, nullptr, false);
  (void)definitionFrom(json);
  PortSettings settings;
  (void)updatePort(json, settings);
}

}  // namespace

/// The first byte chooses; frames go through everything that looks into them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::span<const std::uint8_t> bytes(data + 1, size - 1);
  if ((data[0] & 1) != 0) {
    parsers(bytes);
    return 0;
  }
  FakeClock clock;
  DhcpServer dhcp({.subnet = *blockFrom("10.0.2.0/24"),
                   .server = *ipFrom("10.0.2.3"),
                   .router = ipFrom("10.0.2.2"),
                   .nameServer = ipFrom("10.0.2.3"),
                   .first = *ipFrom("10.0.2.15"),
                   .last = *ipFrom("10.0.2.20"),
                   .domain = "x.internal"},
                  clock);
  auto policy = std::make_shared<EgressPolicy>();
  policy->rules = {*egressRuleFrom("allow *.a"), *egressRuleFrom("deny udp any port 5")};
  policy->allowed = false;
  EgressFilter filter(policy, clock, [](const std::string&, const std::string&) {});
  Switch wires(clock);
  AddressBook book(clock);
  auto port = wires.add({.access = 1, .trunk = {5}}, [](auto, const FrameOffload&) {});
  wires.add({.access = 5, .trunk = {1}}, [](auto, const FrameOffload&) {});
  auto sink = std::make_unique<Sink>();
  Sink* card = sink.get();
  MacTranslator translator(std::move(sink), {2, 0, 0, 0, 0, 9});
  translator.setReceiver([](auto, const FrameOffload&) { return true; });
  auto legTap = std::make_unique<Sink>();
  Sink* hostSide = legTap.get();
  HostLeg leg(
      clock, std::move(legTap), {2, 0, 0, 0, 0, 7}, {2, 0, 0, 0, 0, 9},
      [] {
        return std::vector<HostLeg::Place>{{*ipFrom("10.0.2.1"), *blockFrom("10.0.2.0/24")}};
      },
      [](const IpAddress&, const IpAddress&, bool) { return Status(); }, [](const Frame&) {});
  leg.setReceiver([](auto, const FrameOffload&) { return true; });
  translator.watch([&](const IpAddress& a, const MacAddress& m) { leg.machineHas(a, m); },
                   [&](const IpAddress& a) { leg.claimedElsewhere(a); });
  static auto loop = std::move(*EventLoop::create());
  Services services(
      *loop,
      {.mac = {2, 0, 0, 0, 0, 3},
       .address = *ipFrom("10.0.2.3"),
       .address6 = ipFrom("fd00::3"),
       .router = RouterFacts{{{2, 0, 0, 0, 0, 3}, linkLocalOf({2, 0, 0, 0, 0, 3}), 0},
                             *blockFrom("fd00::/64"),
                             ipFrom("fd00::3"),
                             1500,
                             true}},
      &dhcp, nullptr, [](const MacAddress& m) { return DhcpServer::Client{.name = "machine", .mac = m, .used = {}}; },
      [](const Lease&) {});
  services.setReceiver([](std::span<const std::uint8_t> frame, const FrameOffload&) {
    if (!parsePacket(frame)) std::abort();  // what is sent is whole
    return true;
  });
  std::vector<DnsByTcp::Answer> answers;
  std::uint32_t sequence = 0;  // of the name server's last segment, which a driver that counts would acknowledge
  DnsByTcp names(
      clock, 1500,
      [&](const Frame& f) {
        auto p = parsePacket(f);
        if (!p || p->transport == 0) std::abort();
        sequence = loadBe<std::uint32_t>(&f[p->transport + 4]);
      },
      [&](std::span<const std::uint8_t> query, DnsByTcp::Answer answer) {
        if (query.size() % 2 == 0) return answer(query);
        if (answers.size() < 64) answers.push_back(std::move(answer));
      });
  // Frames one after the other, each behind two bytes of length.
  while (bytes.size() > 2) {
    std::size_t length = std::min<std::size_t>(bytes[0] << 8 | bytes[1], bytes.size() - 2);
    auto frame = bytes.subspan(2, length);
    bytes = bytes.subspan(2 + length);
    auto packet = parsePacket(frame);
    if (!packet) continue;
    (void)Guard::refuse({.port = port, .mac = {}, .addresses = {}}, frame, *packet, book);
    if (filter.allows(frame, *packet)) wires.input(port, frame, {});
    filter.observe(frame, *packet);
    (void)echoReply(frame, *packet);
    translator.send(frame, {});
    card->receive(frame, {});
    leg.send(frame, {});
    hostSide->receive(frame, {});
    services.send(frame, {});
    if (packet->payload != 0) (void)dhcp.answer(frame.subspan(packet->payload, packet->end - packet->payload), {});
    if (packet->ip && packet->protocol == protocol::kTcp) {
      Frame segment(frame.begin(), frame.end());
      // A number that was chosen at random is not to be guessed: it is put in where the segment acknowledges anything.
      if (packet->payload != 0 && (segment[packet->transport + 13] & 16) != 0)
        storeBe(&segment[packet->transport + 8], sequence + (segment[packet->transport + 8] & 3));
      names.segment(segment, *packet);
      if (names.connections() > 128) std::abort();
    }
    if (!answers.empty() && frame.size() % 3 == 0) {
      answers.back()(frame);
      answers.pop_back();
    }
    clock.advance(kNanosecondsPerSecond / 3);
  }
  return 0;
}
