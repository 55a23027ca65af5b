// SPDX-License-Identifier: Apache-2.0
// The register interfaces: xAPIC page (SDM vol. 3, table 11-1) and x2APIC MSRs (table 11-6).
#include <algorithm>

#include "device/apic_bus.h"
#include "device/local_apic.h"
#include "device/local_apic_index.h"

namespace lodge {

namespace {
using namespace local_apic;
constexpr std::uint32_t kVersionValue = 0x0105'0014;  // directed EOI, 6 LVT entries, integrated APIC
constexpr std::uint32_t kErrorSendIllegal = 1 << 5, kErrorRegister = 1 << 7;
constexpr std::uint32_t kMsrBase = 0x1b, kMsrTscDeadline = 0x6e0, kMsrFirst = 0x800, kMsrLast = 0x83f;
constexpr std::uint64_t kIcrReserved = 0xfff3'2000;  // of the low half; bit 12 reads as 0
constexpr std::uint32_t kIcrWritable = 0x000c'cfff, kSpuriousWritable = 0x13ff, kDivideWritable = 0xb;
constexpr std::uint32_t kReadOnlyLvtBits = 0x5000;  // delivery status, remote IRR

/// Writable bits, in the order of the registers: timer, thermal, performance, LINT0, LINT1, error (figure 11-8).
constexpr std::uint32_t kLvtBits[LocalApic::kLvtCount] = {0x7'00ff, 0x1'07ff, 0x1'07ff, 0x1'a7ff, 0x1'a7ff, 0x1'00ff};
}  // namespace

std::uint64_t LocalApic::read(std::uint64_t offset, unsigned size) {
  // Registers are 32 bits wide at multiples of 16; the rest of each paragraph reads as zero.
  if ((offset & 12) != 0) return 0;
  bool exists = true;
  std::uint32_t value = readRegister(static_cast<unsigned>(offset >> 4), exists);
  if (!exists) raiseError(kErrorRegister);
  std::uint64_t shifted = value >> (8 * (offset & 3));
  return size >= 4 ? shifted : shifted & ((1u << (8 * size)) - 1);
}

void LocalApic::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if ((offset & 15) != 0 || size < 4) return;  // "undefined" (11.4.1)
  auto index = static_cast<unsigned>(offset >> 4);
  if (!writeRegister(index, static_cast<std::uint32_t>(value))) raiseError(kErrorRegister);
}

std::uint32_t LocalApic::arbitrationPriority() const {
  auto priorityClass = [](int vector) { return vector < 0 ? 0u : static_cast<unsigned>(vector) & 0xf0; };
  std::uint32_t tpr = tpr_.load(std::memory_order_relaxed);
  return std::max({tpr, priorityClass(irr_.highest()), priorityClass(isr_.highest())});
}

std::uint32_t LocalApic::readRegister(unsigned index, bool& exists) const {
  if (index >= kIsr && index < kTmr) return isr_.word(index - kIsr);
  if (index >= kTmr && index < kIrr) return tmr_.word(index - kTmr);
  if (index >= kIrr && index < kErrorStatus) return irr_.word(index - kIrr);
  if (index >= kLvtFirst && index <= kLvtLast) return lvt_[index - kLvtFirst].load(std::memory_order_relaxed);
  switch (index) {
    case kId:
      return x2Apic() ? id() : id() << 24;
    case kVersion:
      return kVersionValue;
    case kTaskPriority:
      return tpr_.load(std::memory_order_relaxed);
    case kArbitration:
      return arbitrationPriority();
    case kProcessorPriority:
      return processorPriority();
    case kEoi:
    case kRemoteRead:
      return 0;
    case kLogicalDestination:
      return logicalDestination_.load(std::memory_order_relaxed);
    case kDestinationFormat:
      return destinationFormat_.load(std::memory_order_relaxed);
    case kSpurious:
      return spurious_.load(std::memory_order_relaxed);
    case kErrorStatus:
      return errorStatus_.load(std::memory_order_relaxed);
    case kCommand:
      return static_cast<std::uint32_t>(icr_.load(std::memory_order_relaxed));
    case kCommandHigh:
      return static_cast<std::uint32_t>(icr_.load(std::memory_order_relaxed) >> 32);
    case kInitialCount:
      return timer_.initialCount();
    case kCurrentCount:
      return timer_.currentCount();
    case kDivide:
      return timer_.divide();
    default:
      exists = false;
      return 0;
  }
}

bool LocalApic::writeRegister(unsigned index, std::uint32_t value) {
  if (index >= kLvtFirst && index <= kLvtLast) {
    writeLvt(index - kLvtFirst, value);
    return true;
  }
  switch (index) {
    case kId:
      id_ = value >> 24;
      return true;
    case kTaskPriority:
      tpr_.store(static_cast<std::uint8_t>(value), std::memory_order_relaxed);
      updatePriority();
      signalIfPending();
      return true;
    case kEoi:
      endOfInterrupt();
      return true;
    case kLogicalDestination:
      logicalDestination_ = value & 0xff00'0000;
      return true;
    case kDestinationFormat:
      destinationFormat_ = value | 0x0fff'ffff;
      return true;
    case kSpurious:
      writeSpurious(value);
      return true;
    case kErrorStatus:
      writeErrorStatus();
      return true;
    case kCommand:
      sendCommand((icr_ & 0xffff'ffff'0000'0000) | (value & kIcrWritable));
      return true;
    case kCommandHigh:
      icr_ = (icr_ & 0xffff'ffff) | std::uint64_t{value & 0xff00'0000} << 32;
      return true;
    case kInitialCount:
      timer_.setInitialCount(value);
      return true;
    case kDivide:
      timer_.setDivide(value & kDivideWritable);
      return true;
    default:
      // Read-only registers swallow writes; what is no register is an error.
      bool readOnly = index == kVersion || (index >= kArbitration && index <= kRemoteRead) ||
                      (index >= kIsr && index < kErrorStatus) || index == kCurrentCount;
      return readOnly;
  }
}

void LocalApic::writeLvt(unsigned index, std::uint32_t value) {
  value &= kLvtBits[index];
  if (!softwareEnabled()) value |= kLvtMasked;
  if (index == kLvtLint0 || index == kLvtLint1) return storeLint(index, value);
  lvt_[index].store(value, std::memory_order_relaxed);
  if (index != kLvtTimer) return;
  std::uint32_t mode = (value >> 17) & 3;
  timer_.setMode(mode == 3 ? LocalApicTimer::Mode::oneShot : static_cast<LocalApicTimer::Mode>(mode));
}

void LocalApic::writeSpurious(std::uint32_t value) {
  spurious_ = value & kSpuriousWritable;
  if (softwareEnabled()) return;
  for (unsigned index = 0; index < kLvtCount; ++index) {  // 11.4.7.2
    std::uint32_t masked = lvt_[index].load(std::memory_order_relaxed) | kLvtMasked;
    if (index == kLvtLint0 || index == kLvtLint1) {
      storeLint(index, masked);
    } else {
      lvt_[index].store(masked, std::memory_order_relaxed);
    }
  }
}

void LocalApic::writeErrorStatus() {
  errorStatus_ = pendingErrors_.exchange(0);
}

void LocalApic::sendCommand(std::uint64_t command) {
  icr_ = command & ~std::uint64_t{1 << 12};
  auto mode = static_cast<DeliveryMode>((command >> 8) & 7);
  bool hasVector = mode == DeliveryMode::fixed || mode == DeliveryMode::lowestPriority;
  if (hasVector && (command & 0xff) < 16) return raiseError(kErrorSendIllegal);
  auto high = static_cast<std::uint32_t>(command >> 32);
  bus_.sendIpi(*this, static_cast<std::uint32_t>(command), x2Apic() ? high : high >> 24, x2Apic());
}

bool LocalApic::readMsr(std::uint32_t msr, std::uint64_t& value) {
  if (msr == kMsrBase) {
    value = base_.load(std::memory_order_relaxed);
    return true;
  }
  if (msr == kMsrTscDeadline) {
    value = timer_.tscDeadline();
    return true;
  }
  return x2Apic() && msr >= kMsrFirst && msr <= kMsrLast && readX2Apic(msr - kMsrFirst, value);
}

bool LocalApic::writeMsr(std::uint32_t msr, std::uint64_t value) {
  if (msr == kMsrTscDeadline) {
    timer_.setTscDeadline(value);
    return true;
  }
  if (msr == kMsrBase) return writeBase(value);
  return x2Apic() && msr >= kMsrFirst && msr <= kMsrLast && writeX2Apic(msr - kMsrFirst, value);
}

bool LocalApic::readX2Apic(unsigned index, std::uint64_t& value) const {
  switch (index) {
    case kArbitration:
    case kEoi:
    case kRemoteRead:
    case kDestinationFormat:
    case kCommandHigh:
      return false;
    case kCommand:
      value = icr_.load(std::memory_order_relaxed);
      return true;
    default:
      break;
  }
  bool exists = true;
  value = readRegister(index, exists);
  return exists;
}

bool LocalApic::writeX2Apic(unsigned index, std::uint64_t value) {
  if (index == kCommand) {
    if ((value & kIcrReserved) != 0) return false;
    sendCommand(value);
    return true;
  }
  std::uint64_t allowed = 0;
  if (index >= kLvtFirst && index <= kLvtLast) {
    allowed = kLvtBits[index - kLvtFirst] | kReadOnlyLvtBits;
  } else {
    switch (index) {
      case kEoi:
      case kErrorStatus:
        allowed = 0;
        break;
      case kTaskPriority:
      case kSelfIpi:
        allowed = 0xff;
        break;
      case kSpurious:
        allowed = kSpuriousWritable;
        break;
      case kInitialCount:
        allowed = 0xffff'ffff;
        break;
      case kDivide:
        allowed = kDivideWritable;
        break;
      default:
        return false;
    }
  }
  if ((value & ~allowed) != 0) return false;
  if (index != kSelfIpi) return writeRegister(index, static_cast<std::uint32_t>(value));
  if (value < 16) {
    raiseError(kErrorSendIllegal);
  } else {
    acceptVector(static_cast<std::uint8_t>(value), false);
  }
  return true;
}

/// IA32_APIC_BASE, whose mode changes are those of figure 11-27.
bool LocalApic::writeBase(std::uint64_t value) {
  std::uint64_t old = base_.load(std::memory_order_relaxed);
  constexpr std::uint64_t kMode = kEnable | kX2Apic;
  if ((value & baseReserved_) != 0 || (value & kMode) == kX2Apic) return false;
  if ((old & kMode) == kMode && (value & kMode) == kEnable) return false;
  if ((old & kMode) == 0 && (value & kMode) == kMode) return false;
  base_ = value;
  if (((old ^ value) & kMode) == 0) return true;
  if ((value & kEnable) == 0) {
    clearRegisters();
  } else if ((value & kX2Apic) != 0) {
    enterX2Apic();
  } else {
    id_ = initialId_ & 0xff;
  }
  lintConfigured();
  return true;
}

void LocalApic::enterX2Apic() {
  id_ = initialId_;
  logicalDestination_ = (initialId_ >> 4) << 16 | 1u << (initialId_ & 15);
}

}  // namespace lodge
