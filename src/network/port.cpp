// SPDX-License-Identifier: Apache-2.0
#include "network/port.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kLogAgain = 10 * kNanosecondsPerSecond;
constexpr std::size_t kMostTrunks = 4094, kMostAddresses = 64;

std::string_view toString(Port::Role role) {
  constexpr std::string_view kNames[] = {"machine", "services", "uplink", "tunnel"};
  return kNames[static_cast<std::size_t>(role)];
}

std::optional<std::uint16_t> vlanFrom(const Json& json) {
  if (!json.is_number_unsigned() || json.get<std::uint64_t>() < 1 || json.get<std::uint64_t>() > 4094)
    return std::nullopt;
  return json.get<std::uint16_t>();
}

Error wrong(const char* key, const char* why) {
  return Error(ErrorKind::invalidArgument, fmt::format("port: {} {}", inQuotes(key), why));
}

Status updateLists(const Json& json, PortSettings& s) {
  if (auto it = json.find("addresses"); it != json.end()) {
    if (!it->is_array() || it->size() > kMostAddresses) return wrong("addresses", "is no short list");
    s.addresses.clear();
    for (const Json& entry : *it) {
      auto address = entry.is_string() ? ipFrom(entry.get<std::string>()) : std::nullopt;
      if (!address || address->multicast() || address->unspecified()) return wrong("addresses", "has a bad address");
      s.addresses.push_back(*address);
    }
  }
  if (auto it = json.find("trunk"); it != json.end()) {
    if (!it->is_array() || it->size() > kMostTrunks) return wrong("trunk", "is no list of VLANs");
    s.vlans.trunk.clear();
    for (const Json& entry : *it) {
      auto vlan = vlanFrom(entry);
      if (!vlan) return wrong("trunk", "has a VLAN that is not 1 to 4094");
      s.vlans.trunk.insert(*vlan);
    }
  }
  return {};
}

}  // namespace

Json toJson(const PortSettings& s) {
  Json json = {{"name", s.name}, {"up", s.up}, {"vlan", s.vlans.access}};
  if (s.mac) json["mac"] = toText(*s.mac);
  for (const IpAddress& a : s.addresses) json["addresses"].push_back(toText(a));
  if (s.cable) json["cable"] = toJson(*s.cable);
  if (!s.vlans.trunk.empty()) json["trunk"] = s.vlans.trunk;
  if (s.antiSpoof) json["antiSpoof"] = *s.antiSpoof;
  if (!s.mirrorOf.empty()) json["mirrorOf"] = s.mirrorOf;
  return json;
}

Status updatePort(const Json& json, PortSettings& s) {
  if (!json.is_object()) return wrong("settings", "is no object");
  auto text = [&](const char* key, std::string& out) {
    auto it = json.find(key);
    if (it == json.end()) return true;
    if (!it->is_string() || it->get_ref<const std::string&>().size() > 64) return false;
    out = it->get<std::string>();
    return true;
  };
  std::string mac;
  if (!text("name", s.name)) return wrong("name", "is no short string");
  if (!text("mirrorOf", s.mirrorOf)) return wrong("mirrorOf", "is no short string");
  if (!text("mac", mac)) return wrong("mac", "is no string");
  if (!mac.empty()) {
    s.mac = macFrom(mac);
    if (!s.mac || isGroup(*s.mac)) return wrong("mac", "is not a card's address");
  }
  if (auto it = json.find("up"); it != json.end()) {
    if (!it->is_boolean()) return wrong("up", "is neither true nor false");
    s.up = it->get<bool>();
  }
  if (auto it = json.find("antiSpoof"); it != json.end()) {
    if (!it->is_boolean()) return wrong("antiSpoof", "is neither true nor false");
    s.antiSpoof = it->get<bool>();
  }
  if (auto it = json.find("cable"); it != json.end()) {
    s.cable = cableFrom(*it);
    if (!s.cable) return wrong("cable", "has values out of range");
  }
  if (auto it = json.find("vlan"); it != json.end()) {
    auto vlan = vlanFrom(*it);
    if (!vlan) return wrong("vlan", "is not 1 to 4094");
    s.vlans.access = *vlan;
  }
  return updateLists(json, s);
}

Port::Port(Context context, PortSettings settings, Role role, std::unique_ptr<NetBackend> link)
    : context_(context),
      settings_(std::move(settings)),
      role_(role),
      link_(std::move(link)),
      direct_(dynamic_cast<DirectLink*>(link_.get())),
      in_(context.loop, [this](auto frame, const FrameOffload& o) { context_.wires.input(id_, frame, o); }),
      out_(context.loop, [this](auto frame, const FrameOffload& o) {
        ++counters_.framesOut;
        counters_.bytesOut += frame.size();
        if (context_.tap) context_.tap(*this, frame, CaptureFormat::Direction::out);
        link_->send(frame, o);
      }) {
  id_ =
      context_.wires.add(settings_.vlans, [this](auto frame, const FrameOffload& offload) { toLink(frame, offload); });
  identity_.port = id_;
}

Port::~Port() {
  context_.wires.remove(id_);
  context_.book.remove(id_);
}

void Port::start() {
  link_->setReceiver([this](std::span<const std::uint8_t> frame, const FrameOffload& offload) {
    fromLink(frame, offload);
    return true;
  });
}

void Port::apply(const PortSettings& settings, const CableSettings& cable, bool antiSpoof) {
  if (settings_.mac) context_.wires.unpin(id_, *settings_.mac);
  if (!(settings.vlans == settings_.vlans)) context_.wires.setVlans(id_, settings.vlans);
  settings_ = settings;
  guarded_ = antiSpoof && role_ == Role::machine;
  if (settings_.mac) context_.wires.pin(id_, *settings_.mac);
  identity_.mac = settings_.mac;
  identity_.addresses = settings_.addresses;
  for (const IpAddress& a : settings_.addresses) context_.book.assign(a, id_);
  in_.set(cable);
  out_.set(cable);
}

bool Port::guards(std::span<const std::uint8_t> frame) {
  if (!guarded_) return true;
  auto packet = parsePacket(frame);
  return packet && guards(frame, *packet);
}

bool Port::guards(std::span<const std::uint8_t> frame, const Packet& packet) {
  const char* why = guarded_ ? Guard::refuse(identity_, frame, packet, context_.book) : nullptr;
  if (!why) return true;
  ++counters_.spoofed;
  ++refused_[why];
  Nanoseconds now = context_.loop.clock().now();
  if (spoofLogged_ < 0 || now - spoofLogged_ > kLogAgain) {
    log(LogLevel::warning, "port {}: dropped a frame that is not its own: {}", inQuotes(settings_.name), why);
    spoofLogged_ = now;
  }
  return false;
}

void Port::kernelDropped(const Json& drops) {
  std::string text;
  std::uint64_t all = 0;
  for (const auto& [why, count] : drops.items()) {
    if (!count.is_number_unsigned()) continue;
    auto frames = count.get<std::uint64_t>();
    std::uint64_t fresh = frames - std::min(frames, std::exchange(inKernel_[why], frames));
    if (fresh == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", why, fresh);
    all += fresh;
  }
  if (all != 0)
    log(LogLevel::warning, "port {}: the host's kernel dropped {} frames that are not its own: {}",
        inQuotes(settings_.name), all, text);
}

bool Port::admits(std::span<const std::uint8_t> frame) {
  if (!guarded_ && !filter_) return true;
  auto packet = parsePacket(frame);
  if (!packet || !guards(frame, *packet)) return false;
  if (filter_ && !filter_->allows(frame, *packet)) {
    ++counters_.refused;
    return false;
  }
  return true;
}

void Port::fromLink(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (frame.size() < ether::kHeader) return;
  if (!settings_.up) {
    ++counters_.down;
    return;
  }
  ++counters_.framesIn;
  counters_.bytesIn += frame.size();
  if (context_.tap) context_.tap(*this, frame, CaptureFormat::Direction::in);
  if (role_ == Role::uplink && context_.fromBridge && !context_.fromBridge(frame)) return;
  if (admits(frame)) in_.push(frame, offload);
}

void Port::toLink(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (!settings_.up) {
    ++counters_.down;
    return;
  }
  if (filter_) {
    if (auto packet = parsePacket(frame)) filter_->observe(frame, *packet);
  }
  out_.push(frame, offload);
}

PortCounters Port::counters() const {
  PortCounters c = counters_;
  c.shaped = in_.dropped() + out_.dropped();
  for (const auto& [why, count] : inKernel_) c.spoofed += count;
  if (direct_) {
    // The device counts what passes either way, through the switch or past it.
    auto passed = direct_->counters();
    c.framesIn = passed.framesIn;
    c.bytesIn = passed.bytesIn;
    c.framesOut = passed.framesOut;
    c.bytesOut = passed.bytesOut;
  }
  return c;
}

Json Port::describe() const {
  Json json = toJson(settings_);
  PortCounters c = counters();
  json["id"] = id_;
  json["role"] = toString(role_);
  json["guarded"] = guarded_;
  if (direct_) json["direct"] = {{"device", direct_->tap()}, {"held", direct_->held()}, {"vhost", direct_->byVhost()}};
  for (const auto* reasons : {&refused_, &inKernel_}) {
    for (const auto& [why, count] : *reasons)
      json["dropped"][why] = count + (json.contains("dropped") ? json["dropped"].value(why, std::uint64_t{0}) : 0);
  }
  json["counters"] = {{"framesIn", c.framesIn}, {"bytesIn", c.bytesIn}, {"framesOut", c.framesOut},
                      {"bytesOut", c.bytesOut}, {"spoofed", c.spoofed}, {"refused", c.refused},
                      {"shapedAway", c.shaped}, {"whileDown", c.down}};
  for (const IpAddress& a : context_.book.addressesOf(id_)) json["seen"].push_back(toText(a));
  return json;
}

}  // namespace lodge::network
