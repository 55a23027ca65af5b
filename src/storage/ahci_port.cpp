// SPDX-License-Identifier: Apache-2.0
// Registers, link and received FISes; commands are in ahci_commands.cpp.
#include "storage/ahci_port.h"

#include <algorithm>

#include "base/bytes.h"
#include "storage/ahci_defs.h"

namespace lodge {

using namespace ahci;

AhciPort::AhciPort(GuestMemory& memory, std::function<void()> onInterrupt)
    : memory_(memory), onInterrupt_(std::move(onInterrupt)) {}

AhciPort::~AhciPort() {
  std::unique_lock lock(mutex_);
  stopLocked();
  landed_.wait(lock, [this] { return inFlight_ == 0; });
}

void AhciPort::attach(std::unique_ptr<IdeDrive> drive, std::shared_ptr<Disk> disk) {
  drive_ = std::move(drive);
  disk_ = std::move(disk);
  reset();
}

void AhciPort::reset() {
  std::unique_lock lock(mutex_);
  stopLocked();
  landed_.wait(lock, [this] { return inFlight_ == 0; });
  regs_ = {};
  softReset_ = false;
  linkUpLocked();
  regs_.is = 0;
  updatePendingLocked();
}

std::uint32_t AhciPort::read(unsigned offset) {
  std::lock_guard lock(mutex_);
  switch (offset) {
    case port::clb:
      return static_cast<std::uint32_t>(regs_.commandList);
    case port::clbu:
      return static_cast<std::uint32_t>(regs_.commandList >> 32);
    case port::fb:
      return static_cast<std::uint32_t>(regs_.received);
    case port::fbu:
      return static_cast<std::uint32_t>(regs_.received >> 32);
    case port::is:
      return regs_.is;
    case port::ie:
      return regs_.ie;
    case port::cmd: {
      std::uint32_t value = regs_.cmd | kSpinUp | kPowerOn;
      if ((regs_.cmd & kStart) != 0 || inFlight_ != 0) value |= kListRunning;
      if ((regs_.cmd & kFisReceive) != 0) value |= kFisRunning;
      if (drive_ && drive_->isPacketDevice()) value |= kIsAtapi;
      return current_ ? value | current_->slot << 8 : value;
    }
    case port::tfd:
      return regs_.tfd;
    case port::sig:
      return regs_.signature;
    case port::ssts:
      return drive_ && (regs_.sctl & 15) == 0 ? kLinkUp : 0;
    case port::sctl:
      return regs_.sctl;
    case port::serr:
      return regs_.serr;
    case port::sact:
      return regs_.sact;
    case port::ci:
      return regs_.ci;
    default:
      return 0;
  }
}

void AhciPort::write(unsigned offset, std::uint32_t value) {
  auto setHalf = [value](std::uint64_t& field, bool high, std::uint32_t mask) {
    if (high)
      field = (field & 0xffff'ffff) | std::uint64_t{value} << 32;
    else
      field = (field & ~std::uint64_t{0xffff'ffff}) | (value & mask);
  };
  {
    std::unique_lock lock(mutex_);
    switch (offset) {
      case port::clb:
      case port::clbu:
        setHalf(regs_.commandList, offset == port::clbu, ~0x3ffu);
        break;
      case port::fb:
      case port::fbu:
        setHalf(regs_.received, offset == port::fbu, ~0xffu);
        break;
      case port::is:
        regs_.is &= ~value;
        if ((regs_.serr & kExchanged) != 0) regs_.is |= kPortChanged;  // follows SERR (3.3.5)
        break;
      case port::ie:
        regs_.ie = value;
        break;
      case port::cmd:
        writeCommandLocked(value);
        break;
      case port::sctl:
        writeControl(lock, value);
        break;
      case port::serr:
        regs_.serr &= ~value;
        if ((regs_.serr & kExchanged) == 0) regs_.is &= ~kPortChanged;
        break;
      case port::sact:
        if ((regs_.cmd & kStart) != 0) regs_.sact |= value;
        break;
      case port::ci:
        if ((regs_.cmd & kStart) != 0) regs_.ci |= value;
        break;
      default:
        break;
    }
    updatePendingLocked();
  }
  onInterrupt_();
  if (offset == port::ci) advance();
}

void AhciPort::writeCommandLocked(std::uint32_t value) {
  constexpr std::uint32_t kWritable = kStart | kFisReceive | 1u << 25 | 1u << 26 | 1u << 27;
  bool started = (regs_.cmd & kStart) != 0;
  regs_.cmd = value & kWritable;
  if ((value & kListOverride) != 0) regs_.tfd &= ~std::uint32_t{ide::kBusy | ide::kDataRequest};
  if (started && (value & kStart) == 0) stopLocked();
  if (!started && (value & kStart) != 0) halted_ = false;
  // With the first FIS area the device's signature comes.
  if ((value & kFisReceive) != 0 && drive_)
    regs_.signature = drive_->isPacketDevice() ? kAtapiSignature : kAtaSignature;
}

/// No command is under way for the guest afterwards; requests to the disk may still be, and PxCMD.CR says so.
void AhciPort::stopLocked() {
  regs_.cmd &= ~kStart;
  regs_.ci = regs_.sact = 0;
  ++generation_;
  if (current_ && drive_) drive_->reset();
  current_.reset();
  halted_ = false;
}

void AhciPort::writeControl(std::unique_lock<std::mutex>& lock, std::uint32_t value) {
  std::uint32_t before = regs_.sctl & 15;
  regs_.sctl = value & 0xfff;
  if (before == 1 || (value & 15) != 1) {
    if (before == 1 && (value & 15) == 0) linkUpLocked();
    return;
  }
  // COMRESET: the link is down until DET is written back to 0.
  std::uint32_t keep = regs_.cmd;
  stopLocked();
  regs_.cmd = keep & ~kStart;
  regs_.tfd = ide::kBusy | 0x7f;
  landed_.wait(lock, [this] { return inFlight_ == 0; });
}

void AhciPort::linkUpLocked() {
  if (!drive_) {
    regs_.tfd = 0x7f;
    return;
  }
  drive_->reset();
  regs_.signature = drive_->isPacketDevice() ? kAtapiSignature : kAtaSignature;
  regs_.serr |= kExchanged;
  regs_.is |= kPortChanged;
  sendRegistersLocked(false);
}

void AhciPort::updatePendingLocked() {
  pending_ = (regs_.is & regs_.ie) != 0;
}

void AhciPort::raiseLocked(std::uint32_t bits) {
  regs_.is |= bits;
  updatePendingLocked();
}

void AhciPort::storeFisLocked(unsigned offset, std::span<const std::uint8_t> fis) {
  if ((regs_.cmd & kFisReceive) == 0) return;
  if (!memory_.write(Gpa{regs_.received + offset}, std::as_bytes(fis))) raiseLocked(kHostBusError);
}

/// A Register - Device to Host FIS (Serial ATA 3.0, 10.5.5): the task file as the device has it.
void AhciPort::sendRegistersLocked(bool interrupt) {
  const IdeTaskFile& r = drive_->registers();
  regs_.tfd = r.status | std::uint32_t{r.error} << 8;
  const std::uint8_t fis[20] = {kFisRegisters, static_cast<std::uint8_t>(interrupt ? 0x40 : 0),
                                r.status,      r.error,
                                r.low.now,     r.mid.now,
                                r.high.now,    r.device,
                                r.low.before,  r.mid.before,
                                r.high.before, 0,
                                r.count.now,   r.count.before};
  storeFisLocked(kRegistersAt, fis);
  if (interrupt) raiseLocked(kRegistersReceived);
}

void AhciPort::sendPioSetupLocked(std::size_t bytes, bool toHost) {
  const IdeTaskFile& r = drive_->registers();
  std::uint8_t fis[20] = {kFisPioSetup, static_cast<std::uint8_t>(toHost ? 0x60 : 0x40),
                          r.status,     r.error,
                          r.low.now,    r.mid.now,
                          r.high.now,   r.device,
                          r.low.before, r.mid.before,
                          r.high.before};
  fis[12] = r.count.now;
  fis[13] = r.count.before;
  fis[15] = ide::kReady | ide::kSeekDone;
  storeLe(fis + 16, static_cast<std::uint16_t>(bytes));
  storeFisLocked(kPioSetupAt, fis);
  raiseLocked(kPioSetupReceived);
}

/// Set Device Bits: queued commands ended (10.5.7).
void AhciPort::sendDeviceBitsLocked(std::uint32_t done, std::uint8_t status, std::uint8_t error) {
  std::uint8_t fis[8] = {kFisDeviceBits, 0x40, static_cast<std::uint8_t>(status & 0x77), error};
  storeLe(fis + 4, done);
  regs_.sact &= ~done;
  regs_.tfd = (regs_.tfd & 0x88) | (status & 0x77u) | std::uint32_t{error} << 8;
  storeFisLocked(kDeviceBitsAt, fis);
  raiseLocked(kDeviceBitsReceived);
}

/// The port does no more until the guest has stopped and started it (6.2.2).
void AhciPort::fatalLocked(std::uint32_t bits) {
  halted_ = true;
  raiseLocked(bits);
}

}  // namespace lodge
