// SPDX-License-Identifier: Apache-2.0
#include "device/apic_bus.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "device/local_apic.h"

namespace lodge {

namespace {
constexpr std::uint64_t kMsiBase = 0xfee0'0000, kMsiSize = 0x10'0000;
constexpr std::uint32_t kLogical = 1 << 11, kAssert = 1 << 14, kLevelTriggered = 1 << 15;
constexpr std::uint32_t kRedirectionHint = 8, kLogicalMode = 4;  // of an MSI's address
enum Shorthand : std::uint32_t { kNone, kSelf, kAll, kAllButSelf };

ApicMessage messageOf(std::uint32_t command, std::uint32_t destination, bool wide) {
  auto mode = static_cast<DeliveryMode>((command >> 8) & 7);
  bool level = (command & kLevelTriggered) != 0;
  return {destination,
          wide,
          (command & kLogical) != 0,
          mode,
          static_cast<std::uint8_t>(command),
          level && mode == DeliveryMode::init,  // IPIs of other modes are edge-triggered whatever the bit says
          (command & kAssert) != 0 || !level};
}
/// The message as a write of a device's.
ApicKeeper::Msi msiOf(const ApicMessage& message) {
  std::uint64_t address = kMsiBase | std::uint64_t{message.destination & 0xff} << 12;
  if (message.logical) address |= kLogicalMode;
  std::uint32_t data = message.vector | static_cast<std::uint32_t>(message.mode) << 8;
  if (message.assertLevel) data |= kAssert;
  if (message.levelTriggered) data |= kLevelTriggered;
  return {address, data};
}
}  // namespace

void ApicBus::attach(LocalApic& apic) {
  apics_.push_back(&apic);
}

void ApicBus::sendMsi(std::uint64_t address, std::uint32_t data) {
  if (address - kMsiBase >= kMsiSize) return;
  std::shared_lock lock(keeperMutex_);
  if (keeper_) {
    keeper_->sendMsi(address, data);
    return;
  }
  auto low = static_cast<std::uint32_t>(address);
  bool hint = (low & kRedirectionHint) != 0;
  ApicMessage message{(low >> 12) & 0xff,
                      false,
                      (low & kLogicalMode) != 0,
                      static_cast<DeliveryMode>((data >> 8) & 7),
                      static_cast<std::uint8_t>(data),
                      (data & kLevelTriggered) != 0,
                      (data & kAssert) != 0};
  // Without the redirection hint the destination mode still counts: guests in logical mode rely on it.
  if (hint && message.logical && message.mode == DeliveryMode::fixed) message.mode = DeliveryMode::lowestPriority;
  deliverHere(message);
}

bool ApicBus::deliver(const ApicMessage& message) {
  std::shared_lock lock(keeperMutex_);
  if (!keeper_) return deliverHere(message);
  auto msi = msiOf(message);
  return keeper_->sendMsi(msi.address, msi.data);
}

bool ApicBus::deliverHere(const ApicMessage& message) {
  if (message.mode == DeliveryMode::lowestPriority) {
    LocalApic* chosen = lowestPriority(message);
    return chosen && chosen->accept(message);
  }
  bool taken = false;
  for (LocalApic* apic : apics_) {
    if (apic->isDestination(message)) taken |= apic->accept(message);
  }
  return taken;
}

void ApicBus::setKeeper(ApicKeeper* keeper, const std::function<void()>& move) {
  std::unique_lock lock(keeperMutex_);
  for (MsiRoute* route : routes_) {
    if (route->byEvent) keeper_->setMsiEvent(route->event.get(), nullptr);
    route->byEvent = false;
  }
  move();
  keeper_ = keeper;
  if (!keeper) return;
  tellLevelMessages();
  for (MsiRoute* route : routes_) tellRouteLocked(*route);
}

void ApicBus::tellRouteLocked(MsiRoute& route) {
  if (!route.event) route.event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ApicKeeper::Msi message{route.address, route.data};
  bool isMsi = route.address - kMsiBase < kMsiSize;  // else nothing comes of it, which sendMsi() sees to
  if (!isMsi && route.byEvent) keeper_->setMsiEvent(route.event.get(), nullptr);
  route.byEvent = isMsi && route.event && keeper_->setMsiEvent(route.event.get(), &message);
}

void ApicBus::setRoute(MsiRoute& route) {
  std::shared_lock lock(keeperMutex_);
  std::lock_guard routes(levelMutex_);
  if (!std::exchange(route.known, true)) routes_.push_back(&route);
  if (keeper_) tellRouteLocked(route);
}

void ApicBus::dropRoute(MsiRoute& route) {
  std::shared_lock lock(keeperMutex_);
  std::lock_guard routes(levelMutex_);
  if (!std::exchange(route.known, false)) return;
  std::erase(routes_, &route);
  if (std::exchange(route.byEvent, false)) keeper_->setMsiEvent(route.event.get(), nullptr);
}

// The table that owns the route calls all three with its mutex held, so that `byEvent` changes under keeperMutex_ only.
void ApicBus::signal(MsiRoute& route) {
  {
    std::shared_lock lock(keeperMutex_);
    if (route.byEvent) {
      ::eventfd_write(route.event.get(), 1);
      return;
    }
  }
  sendMsi(route.address, route.data);
}

void ApicBus::setLevelMessage(unsigned pin, const ApicMessage* message) {
  std::shared_lock lock(keeperMutex_);
  std::lock_guard levels(levelMutex_);
  std::optional<ApicKeeper::Msi> now;
  if (message) now = msiOf(*message);
  auto& before = levelMessages_.at(pin);
  if (now == before) return;
  before = now;
  if (keeper_) tellLevelMessages();
}

void ApicBus::tellLevelMessages() {
  std::vector<ApicKeeper::Msi> all;
  for (const auto& message : levelMessages_) {
    if (message) all.push_back(*message);
  }
  keeper_->setLevelMessages(all);
}

bool ApicBus::waits(const ApicMessage& message) const {
  if (message.mode != DeliveryMode::fixed && message.mode != DeliveryMode::lowestPriority) return false;
  return std::ranges::any_of(
      apics_, [&](const LocalApic* apic) { return apic->isDestination(message) && apic->isRequested(message.vector); });
}

/// The focus processor (one that is at this vector already), or the one with the lowest processor priority; CPUs that
/// are equal take turns (SDM vol. 3, 11.6.2.4).
LocalApic* ApicBus::lowestPriority(const ApicMessage& message) {
  LocalApic* best = nullptr;
  unsigned start = arbitration_.fetch_add(1, std::memory_order_relaxed);
  for (std::size_t n = 0; n < apics_.size(); ++n) {
    LocalApic* apic = apics_[(start + n) % apics_.size()];
    if (!apic->isDestination(message) || !apic->softwareEnabled()) continue;
    if (apic->isFocus(message.vector)) return apic;
    if (!best || apic->processorPriority() < best->processorPriority()) best = apic;
  }
  return best;
}

void ApicBus::sendIpi(LocalApic& sender, std::uint32_t command, std::uint32_t destination, bool wideDestination) {
  ApicMessage message = messageOf(command, destination, wideDestination);
  if (message.mode == DeliveryMode::remoteRead || message.mode == DeliveryMode::extInt) return;  // reserved in the ICR
  switch ((command >> 18) & 3) {
    case kNone:
      deliverHere(message);
      break;
    case kSelf:
      sender.accept(message);
      break;
    case kAll:
    case kAllButSelf:
      for (LocalApic* apic : apics_) {
        if (apic != &sender || ((command >> 18) & 3) == kAll) apic->accept(message);
      }
      break;
  }
}

std::int64_t ApicBus::sendParavirtIpi(std::uint64_t low, std::uint64_t high, std::uint32_t firstId,
                                      std::uint64_t command, unsigned bitsPerWord) {
  ApicMessage message = messageOf(static_cast<std::uint32_t>(command), 0, true);
  if (message.mode != DeliveryMode::fixed && message.mode != DeliveryMode::nmi) return -22;
  message.logical = false;
  std::int64_t count = 0;
  for (LocalApic* apic : apics_) {
    std::uint32_t bit = apic->id() - firstId;
    bool named =
        bit < bitsPerWord ? (low >> bit & 1) != 0 : bit < 2 * bitsPerWord && (high >> (bit - bitsPerWord) & 1) != 0;
    if (named && apic->accept(message)) ++count;
  }
  return count;
}

void ApicBus::broadcastEoi(std::uint8_t vector) {
  for (EoiListener* listener : eoiListeners_) listener->endOfInterrupt(vector);
}

void ApicBus::endLostInterrupts() {
  // Where EOIs are not broadcast, a handler may be on its way to the I/O APIC's EOI register.
  if (std::ranges::any_of(apics_, [](const LocalApic* apic) { return apic->suppressesEoi(); })) return;
  constexpr unsigned kFirstVector = 16, kVectors = 256;
  for (unsigned n = kFirstVector; n < kVectors; ++n) {
    auto vector = static_cast<std::uint8_t>(n);
    auto has = [=](const LocalApic* apic) { return apic->isRequested(vector) || apic->isInService(vector); };
    if (std::ranges::none_of(apics_, has)) broadcastEoi(vector);
  }
}

void ApicBus::LintLine::set(bool level) {
  for (LocalApic* apic : bus.apics_) apic->setLint(pin, level);
}

}  // namespace lodge
