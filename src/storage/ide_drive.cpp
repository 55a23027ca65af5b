// SPDX-License-Identifier: Apache-2.0
#include "storage/ide_drive.h"

namespace lodge {

void IdeDrive::setSignature() {
  regs_.count.now = regs_.low.now = 1;
  regs_.mid.now = packetDevice_ ? 0x14 : 0;
  regs_.high.now = packetDevice_ ? 0xeb : 0;
  regs_.device &= 0x10;
}

void IdeDrive::reset() {
  phase_ = Phase::idle;
  job_ = {};
  interrupt_ = false;
  setSignature();
  regs_.error = 1;  // diagnostics passed
  regs_.status = packetDevice_ ? 0 : ide::kReady | ide::kSeekDone;
}

void IdeDrive::complete(std::uint8_t error, bool interrupt) {
  phase_ = Phase::idle;
  regs_.error = error;
  regs_.status = static_cast<std::uint8_t>(ide::kReady | ide::kSeekDone | (error != 0 ? ide::kError : 0));
  if (interrupt) interrupt_ = true;
}

void IdeDrive::wantData(Phase phase, std::size_t bytes) {
  offerData(phase, std::make_shared<std::vector<std::uint8_t>>(bytes));
}

void IdeDrive::offerData(Phase phase, std::shared_ptr<std::vector<std::uint8_t>> data) {
  data_ = std::move(data);
  offerRead(phase);
}

void IdeDrive::offerRead(Phase phase) {
  phase_ = phase;
  regs_.status = ide::kReady | ide::kSeekDone | ide::kDataRequest;
}

void IdeDrive::startJob(Job::Kind kind, std::uint64_t offset, std::shared_ptr<std::vector<std::uint8_t>> data) {
  phase_ = Phase::busy;
  regs_.status = ide::kBusy;
  if (kind == Job::Kind::read) data_ = data;
  job_ = {kind, offset, std::move(data), disk_};
}

}  // namespace lodge
