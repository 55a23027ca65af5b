// SPDX-License-Identifier: Apache-2.0
#include "device/pci_function.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace lodge {

namespace {
constexpr std::uint16_t kMsixEnable = 0x8000, kMsixFunctionMask = 0x4000;

std::uint32_t barTypeBits(PciFunction::BarKind kind) {
  switch (kind) {
    case PciFunction::BarKind::io:
      return 1;
    case PciFunction::BarKind::memory32:
      return 0;
    case PciFunction::BarKind::memory64:
      return 4;
    case PciFunction::BarKind::memory64Prefetchable:
      return 0xc;
  }
  return 0;
}
}  // namespace

std::optional<std::uint64_t> PciFunction::Implementation::barAddressLocked(unsigned slotNumber) const {
  const Bar& bar = bars[slotNumber];
  unsigned offset = pci::kBars + 4 * slotNumber;
  if ((word(pci::kCommand) & (bar.isIo() ? pci::kCommandIo : pci::kCommandMemory)) == 0) return std::nullopt;
  std::uint64_t value = dword(offset);
  if (bar.is64()) value |= std::uint64_t{dword(offset + 4)} << 32;
  return value & ~(bar.isIo() ? std::uint64_t{3} : std::uint64_t{15});
}

void PciFunction::Implementation::setBarLocked(unsigned slotNumber, std::uint64_t address) {
  const Bar& bar = bars[slotNumber];
  unsigned offset = pci::kBars + 4 * slotNumber;
  setDword(offset, static_cast<std::uint32_t>(address) | barTypeBits(bar.kind));
  if (bar.is64()) setDword(offset + 4, static_cast<std::uint32_t>(address >> 32));
}

bool PciFunction::Implementation::forwardsLocked(bool io, std::uint64_t base, std::uint64_t size) const {
  if ((word(pci::kCommand) & (io ? pci::kCommandIo : pci::kCommandMemory)) == 0) return false;
  // `first` and `last` as the registers have them; a window whose end lies before its begin is closed.
  auto inside = [&](std::uint64_t first, std::uint64_t last) {
    return first <= last && base >= first && base <= last && size - 1 <= last - base;
  };
  if (io) {
    return inside(std::uint64_t{config[pci::kIoBase] & 0xf0u} << 8,
                  std::uint64_t{config[pci::kIoBase + 1] & 0xf0u} << 8 | 0xfff);
  }
  auto bound = [&](unsigned at) { return std::uint64_t{word(at) & 0xfff0u} << 16; };
  if (inside(bound(pci::kMemoryBase), bound(pci::kMemoryBase + 2) | 0xf'ffff)) return true;
  auto upper = [&](unsigned at) { return std::uint64_t{dword(at)} << 32; };
  return inside(upper(pci::kPrefetchableUpper) | bound(pci::kPrefetchableBase),
                upper(pci::kPrefetchableUpper + 4) | bound(pci::kPrefetchableBase + 2) | 0xf'ffff);
}

void PciFunction::Implementation::updateInterruptsLocked() {
  std::uint16_t command = word(pci::kCommand);
  bool msixOn = false;
  if (msix) {
    std::uint16_t control = word(msixControl);
    msixOn = (control & kMsixEnable) != 0;
    msix->setControl(msixOn, (control & kMsixFunctionMask) != 0, (command & pci::kCommandMaster) != 0);
  }
  bool drive = intxLevel && !msixOn && (command & pci::kCommandIntxDisable) == 0;
  if (drive == intxDriven || !host) return;
  intxDriven = drive;
  host->driveIntx(slot, drive);
}

PciFunction::PciFunction(const PciIdentity& identity, std::string name)
    : impl_(std::make_unique<Implementation>()), name_(std::move(name)) {
  auto& i = *impl_;
  i.setWord(pci::kVendor, identity.vendor);
  i.setWord(pci::kVendor + 2, identity.device);
  i.setDword(pci::kRevision, identity.classCode << 8 | identity.revision);
  i.setWord(pci::kSubsystem, identity.subsystemVendor);
  i.setWord(pci::kSubsystem + 2, identity.subsystem);
  constexpr std::uint16_t kCommandBits = pci::kCommandIo | pci::kCommandMemory | pci::kCommandMaster |
                                         pci::kCommandParity | pci::kCommandSerr | pci::kCommandIntxDisable;
  i.writable[pci::kCommand] = static_cast<std::uint8_t>(kCommandBits);
  i.writable[pci::kCommand + 1] = static_cast<std::uint8_t>(kCommandBits >> 8);
  i.writable[pci::kCacheLine] = i.writable[pci::kLatency] = i.writable[pci::kInterruptLine] = 0xff;
}

PciFunction::~PciFunction() = default;

void PciFunction::addBar(unsigned slot, BarKind kind, std::uint64_t size, IoDevice& handler) {
  auto& bar = impl_->bars.at(slot);
  bar.kind = kind;
  bar.size = size;
  bar.handler = &handler;
  assert(std::has_single_bit(size) && size >= (bar.isIo() ? 16u : 4096u) &&
         bar.size <= (bar.is64() ? 1ull << 40 : 1ull << 31));
  assert(!bar.is64() || slot < 5);
  std::uint64_t mask = ~(size - 1);
  for (unsigned byte = 0; byte < (bar.is64() ? 8u : 4u); ++byte) {
    impl_->writable[pci::kBars + 4 * slot + byte] = static_cast<std::uint8_t>(mask >> (8 * byte));
  }
  impl_->setBarLocked(slot, 0);
}

std::uint8_t PciFunction::addCapability(std::uint8_t id, std::span<const std::uint8_t> body,
                                        std::span<const std::uint8_t> writable) {
  auto& i = *impl_;
  unsigned offset = i.capabilityEnd;
  assert(offset + 2 + body.size() <= pci::kSpaceEnd && writable.size() <= body.size());
  i.config[offset] = id;
  std::copy(body.begin(), body.end(), i.config.begin() + offset + 2);
  std::copy(writable.begin(), writable.end(), i.writable.begin() + offset + 2);
  i.config[i.capabilityLink] = static_cast<std::uint8_t>(offset);
  i.capabilityLink = offset + 1;
  i.capabilityEnd = static_cast<unsigned>((offset + 2 + body.size() + 3) & ~std::size_t{3});
  i.setWord(pci::kStatus, i.word(pci::kStatus) | pci::kStatusCapabilities);
  return static_cast<std::uint8_t>(offset);
}

void PciFunction::addMsix(unsigned slot, unsigned vectors) {
  assert(vectors >= 1 && vectors <= 2048);
  auto& i = *impl_;
  i.msix = std::make_unique<MsixTable>(vectors);
  addBar(slot, BarKind::memory32, i.msix->barSize(), *i.msix);
  std::array<std::uint8_t, 10> body{};
  auto put = [&body](unsigned at, std::uint32_t value, unsigned bytes) {
    for (unsigned b = 0; b < bytes; ++b) body[at + b] = static_cast<std::uint8_t>(value >> (8 * b));
  };
  put(0, vectors - 1, 2);
  put(2, slot, 4);
  put(6, i.msix->pbaOffset() | slot, 4);
  std::array<std::uint8_t, 2> writable{0, (kMsixEnable | kMsixFunctionMask) >> 8};
  i.msixControl = addCapability(pci::kCapabilityMsix, body, writable) + 2u;
}

void PciFunction::makeWritable(unsigned offset, std::uint8_t mask) {
  impl_->writable.at(offset) = mask;
}

void PciFunction::useIntx() {
  impl_->config[pci::kInterruptPin] = 1;
}

void PciFunction::signalMsix(unsigned vector) {
  if (impl_->msix) impl_->msix->signal(vector);
}

bool PciFunction::msixEnabled() const {
  return impl_->msix && impl_->msix->enabled();
}

void PciFunction::setIntx(bool level) {
  std::lock_guard lock(impl_->state);
  if (impl_->intxLevel == level || impl_->config[pci::kInterruptPin] == 0) return;
  impl_->intxLevel = level;
  std::uint16_t status = impl_->word(pci::kStatus);
  impl_->setWord(pci::kStatus, level ? status | pci::kStatusInterrupt : status & ~pci::kStatusInterrupt);
  impl_->updateInterruptsLocked();
}

std::uint32_t PciFunction::readConfig(unsigned offset, unsigned size) {
  configAboutToBeRead(offset, size);
  std::lock_guard lock(impl_->state);
  std::uint32_t value = 0;
  for (unsigned byte = 0; byte < size && offset + byte < pci::kSpaceEnd; ++byte) {
    value |= static_cast<std::uint32_t>(impl_->config[offset + byte]) << (8 * byte);
  }
  return value;
}

void PciFunction::writeConfig(unsigned offset, unsigned size, std::uint32_t value) {
  if (offset >= pci::kSpaceEnd) return;
  auto& i = *impl_;
  size = std::min(size, pci::kSpaceEnd - offset);
  auto touches = [=](unsigned first, unsigned end) { return offset < end && first < offset + size; };
  std::lock_guard accessLock(i.access);
  {
    std::lock_guard lock(i.state);
    for (unsigned byte = 0; byte < size; ++byte) {
      std::uint8_t mask = i.writable[offset + byte];
      auto given = static_cast<std::uint8_t>(value >> (8 * byte));
      i.config[offset + byte] = static_cast<std::uint8_t>((i.config[offset + byte] & ~mask) | (given & mask));
    }
    bool control = i.msix && touches(i.msixControl, i.msixControl + 2);
    if (control || touches(pci::kCommand, pci::kStatus)) i.updateInterruptsLocked();
  }
  unsigned registersEnd = i.behind ? pci::kCapabilities : pci::kBars + 24;  // BARs, or a port's windows
  bool decoding = touches(pci::kCommand, pci::kStatus) || touches(pci::kBars, registersEnd);
  if (decoding && i.host) i.host->updateDecoding(*this);
  configWritten(offset, size);
}

void PciFunction::storeConfig(unsigned offset, std::span<const std::uint8_t> bytes) {
  std::lock_guard lock(impl_->state);
  for (std::size_t n = 0; n < bytes.size() && offset + n < pci::kSpaceEnd; ++n) impl_->config[offset + n] = bytes[n];
}

void PciFunction::configAboutToBeRead(unsigned, unsigned) {}
void PciFunction::configWritten(unsigned, unsigned) {}
void PciFunction::barPlaced(unsigned, std::optional<std::uint64_t>) {}

void PciFunction::transfer(state::Archive& a) {
  auto& i = *impl_;
  auto config = i.config;
  bool intx = i.intxLevel;
  a(config, intx);
  a.require(!intx || config[pci::kInterruptPin] != 0, "an interrupt pin");
  if (i.msix) i.msix->transfer(a);
  if (!a.mayApply()) return;
  {
    std::lock_guard lock(i.state);
    for (unsigned at = 0; at < pci::kSpaceEnd; ++at) {
      // A device may change what is its own; header and BARs have what the guest can have written there.
      bool own = at >= pci::kHeaderEnd || at == pci::kStatus || at == pci::kStatus + 1;
      std::uint8_t mask = own ? 0xff : i.writable[at];
      i.config[at] = static_cast<std::uint8_t>((i.config[at] & ~mask) | (config[at] & mask));
    }
    i.intxLevel = intx;
    i.updateInterruptsLocked();
  }
  if (i.host) i.host->updateDecoding(*this);
}

void PciFunction::reset() {
  auto& i = *impl_;
  std::lock_guard accessLock(i.access);
  {
    std::lock_guard lock(i.state);
    i.setWord(pci::kCommand, 0);
    i.setWord(pci::kStatus, i.word(pci::kStatus) & ~pci::kStatusInterrupt);
    i.config[pci::kCacheLine] = i.config[pci::kLatency] = i.config[pci::kInterruptLine] = 0;
    i.intxLevel = false;
    if (i.msix) {
      i.setWord(i.msixControl, i.word(i.msixControl) & ~(kMsixEnable | kMsixFunctionMask));
      i.msix->reset();
    }
    for (unsigned slot = 0; slot < i.bars.size(); ++slot) {
      if (i.bars[slot].size != 0) i.setBarLocked(slot, 0);
    }
    i.updateInterruptsLocked();
  }
  if (i.host) i.host->updateDecoding(*this);
}

}  // namespace lodge
