// SPDX-License-Identifier: Apache-2.0
#include "device/local_apic.h"

#include "device/apic_bus.h"

namespace lodge {

namespace {
constexpr std::uint32_t kErrorReceiveIllegal = 1 << 6;
constexpr std::uint8_t kFirstLegalVector = 16;
constexpr std::uint64_t kResetBase = 0xfee0'0000;
constexpr std::uint32_t kVirtualWireLint0 = 7 << 8, kVirtualWireLint1 = 4 << 8;  // ExtINT, NMI
}  // namespace

LocalApic::LocalApic(const Setup& setup)
    : initialId_(setup.id),
      bootstrap_(setup.bootstrap),
      baseReserved_(~((std::uint64_t{1} << setup.physicalAddressBits) - 1) | 0x2ff),
      bus_(setup.bus),
      cpu_(setup.cpu),
      timer_(setup.timers, setup.timeOfTsc, [this] { deliverLvt(kLvtTimer); }) {
  powerOn();
  bus_.attach(*this);
}

void LocalApic::powerOn() {
  away_ = false;
  base_ = kResetBase | kEnable | (bootstrap_ ? kBootstrap : 0);
  id_ = initialId_ & 0xff;
  clearRegisters();
  if (bootstrap_) {
    lvt_[kLvtLint0] = kVirtualWireLint0;
    lvt_[kLvtLint1] = kVirtualWireLint1;
  }
  lintConfigured();
}

/// INIT leaves the APIC id and IA32_APIC_BASE as they are, and with them x2APIC mode (SDM vol. 3, 11.4.7.3, 11.12.5.1).
void LocalApic::reset() {
  clearRegisters();
  if (x2Apic()) enterX2Apic();
  lintConfigured();
}

void LocalApic::clearRegisters() {
  timer_.reset();
  for (auto& entry : lvt_) entry = kLvtMasked;
  spurious_ = 0xff;
  logicalDestination_ = 0;
  destinationFormat_ = 0xffff'ffff;
  icr_ = 0;
  errorStatus_ = 0;
  pendingErrors_ = 0;
  tpr_ = 0;
  irr_.clearAll();
  isr_.clearAll();
  tmr_.clearAll();
  extIntMessage_ = false;
  lastAcknowledged_ = -1;
  updatePriority();
}

/// PPR (SDM vol. 3, 11.8.3.1).
void LocalApic::updatePriority() {
  int inService = isr_.highest();
  std::uint8_t serviceClass = inService < 0 ? 0 : static_cast<std::uint8_t>(inService & 0xf0);
  std::uint8_t tpr = tpr_.load(std::memory_order_relaxed);
  ppr_.store((tpr & 0xf0) >= serviceClass ? tpr : serviceClass, std::memory_order_relaxed);
}

void LocalApic::signalIfPending() {
  if (pending()) cpu_.raiseInterrupt();
}

void LocalApic::setTaskPriority(std::uint8_t cr8) {
  tpr_.store(static_cast<std::uint8_t>(cr8 << 4), std::memory_order_relaxed);
  updatePriority();
  signalIfPending();
}

int LocalApic::acknowledge() {
  lastAcknowledged_ = -1;
  if (extIntMessage_.exchange(false) || extInt_.load(std::memory_order_relaxed)) {
    ExtIntSource* source = bus_.extIntSource();
    if (!source) return -1;
    int vector = source->acknowledgeInterrupt();
    signalIfPending();
    return vector;
  }
  int highest = irr_.highest();
  if (highest < 0 || (highest & 0xf0) <= (ppr_.load(std::memory_order_relaxed) & 0xf0)) return -1;
  auto vector = static_cast<std::uint8_t>(highest);
  irr_.clear(vector);
  isr_.set(vector);
  ppr_.store(vector & 0xf0, std::memory_order_relaxed);
  lastAcknowledged_ = vector;
  return vector;
}

void LocalApic::endOfInterrupt() {
  lastAcknowledged_ = -1;
  int highest = isr_.highest();
  if (highest < 0) return;
  auto vector = static_cast<std::uint8_t>(highest);
  isr_.clear(vector);
  updatePriority();
  if (tmr_.test(vector)) {
    if ((spurious_.load(std::memory_order_relaxed) & kSuppressEoi) == 0) bus_.broadcastEoi(vector);
    lintEndOfInterrupt(vector);
  }
  signalIfPending();
}

bool LocalApic::accept(const ApicMessage& message) {
  if (!hardwareEnabled() || away_) return false;
  switch (message.mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowestPriority:
      return acceptVector(message.vector, message.levelTriggered);
    case DeliveryMode::smi:
      cpu_.raiseSmi();
      return true;
    case DeliveryMode::nmi:
      cpu_.raiseNmi();
      return true;
    case DeliveryMode::init:
      // The de-assertion only resynchronised arbitration ids, on buses of old (11.6.1).
      if (message.assertLevel) cpu_.raiseInit();
      return true;
    case DeliveryMode::startUp:
      cpu_.raiseStartUp(message.vector);
      return true;
    case DeliveryMode::extInt:
      extIntMessage_ = true;
      cpu_.raiseInterrupt();
      return true;
    case DeliveryMode::remoteRead:
      return false;
  }
  return false;
}

bool LocalApic::acceptVector(std::uint8_t vector, bool levelTriggered) {
  if (!softwareEnabled()) return false;
  if (vector < kFirstLegalVector) {
    raiseError(kErrorReceiveIllegal);
    return false;
  }
  if (levelTriggered) {
    tmr_.set(vector);
  } else if (tmr_.test(vector)) {
    tmr_.clear(vector);
  }
  // Where the bit was set already, whoever set it raises the CPU.
  if (!irr_.set(vector)) cpu_.raiseInterrupt();
  return true;
}

bool LocalApic::deliverLvt(unsigned index) {
  std::uint32_t entry = lvt_[index].load(std::memory_order_relaxed);
  if ((entry & kLvtMasked) != 0 || !hardwareEnabled()) return false;
  bool hasMode = index != kLvtTimer && index != kLvtError;
  ApicMessage message{};
  message.mode = hasMode ? static_cast<DeliveryMode>((entry >> 8) & 7) : DeliveryMode::fixed;
  message.vector = static_cast<std::uint8_t>(entry);
  message.assertLevel = true;
  if (message.mode == DeliveryMode::startUp || message.mode == DeliveryMode::extInt) return false;
  return accept(message);
}

void LocalApic::raiseError(std::uint32_t bits) {
  pendingErrors_.fetch_or(bits);
  std::uint32_t entry = lvt_[kLvtError].load(std::memory_order_relaxed);
  bool deliverable = (entry & 0xff) >= kFirstLegalVector;  // or the error's delivery would be an error without end
  if (deliverable) deliverLvt(kLvtError);
}

bool LocalApic::isFocus(std::uint8_t vector) const {
  if ((spurious_.load(std::memory_order_relaxed) & kFocusDisabled) != 0) return false;
  return irr_.test(vector) || isr_.test(vector);
}

bool LocalApic::isDestination(const ApicMessage& message) const {
  if (!hardwareEnabled()) return false;
  std::uint32_t destination = message.destination;
  if (destination == (message.wideDestination ? 0xffff'ffffu : 0xffu) &&
      (!message.logical || message.wideDestination)) {
    return true;
  }
  if (!message.logical) return destination == id();
  std::uint32_t ldr = logicalDestination_.load(std::memory_order_relaxed);
  if (x2Apic()) return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff) != 0;  // 11.12.10.2
  if (destination > 0xff) return false;
  bool flat = (destinationFormat_.load(std::memory_order_relaxed) >> 28) == 0xf;
  ldr >>= 24;
  if (flat) return (destination & ldr) != 0;
  bool cluster = destination >> 4 == 0xf || destination >> 4 == ldr >> 4;  // 11.6.2.2
  return cluster && (destination & ldr & 0xf) != 0;
}

LocalApic::State LocalApic::save() const {
  State state{};
  state.base = base_;
  state.icr = icr_;
  state.id = id_;
  state.logicalDestination = logicalDestination_;
  state.destinationFormat = destinationFormat_;
  state.spurious = spurious_;
  state.errorStatus = errorStatus_;
  state.pendingErrors = pendingErrors_;
  state.taskPriority = tpr_;
  for (unsigned n = 0; n < kLvtCount; ++n) state.lvt[n] = lvt_[n];
  for (unsigned n = 0; n < 8; ++n) {
    state.irr[n] = irr_.word(n);
    state.isr[n] = isr_.word(n);
    state.tmr[n] = tmr_.word(n);
  }
  state.timer = timer_.save();
  return state;
}

void LocalApic::restore(const State& state) {
  away_ = false;
  clearRegisters();
  base_ = state.base;
  icr_ = state.icr;
  id_ = state.id;
  logicalDestination_ = state.logicalDestination;
  destinationFormat_ = state.destinationFormat;
  spurious_ = state.spurious;
  errorStatus_ = state.errorStatus;
  pendingErrors_ = state.pendingErrors;
  tpr_ = state.taskPriority;
  for (unsigned n = 0; n < kLvtCount; ++n) lvt_[n] = state.lvt[n];
  for (unsigned n = 0; n < 8; ++n) {
    irr_.setWord(n, state.irr[n]);
    isr_.setWord(n, state.isr[n]);
    tmr_.setWord(n, state.tmr[n]);
  }
  updatePriority();
  lintConfigured();
  timer_.restore(state.timer);
  signalIfPending();
}

}  // namespace lodge
