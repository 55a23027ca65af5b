// SPDX-License-Identifier: Apache-2.0
// How an AHCI controller is saved and loaded: between commands.
#include <algorithm>

#include "storage/ahci_controller.h"

namespace lodge {

using state::Archive;

bool AhciPort::isQuiet() {
  std::lock_guard lock(mutex_);
  return inFlight_ == 0;
}

int AhciPort::quiesce() {
  std::unique_lock lock(mutex_);
  landed_.wait(lock, [this] { return inFlight_ == 0; });
  return drive_ ? drive_->settle() : 0;
}

void AhciPort::transfer(Archive& a) {
  std::lock_guard lock(mutex_);
  bool there = drive_ != nullptr;
  a(there);
  a.require(there == (drive_ != nullptr), "a drive that is not there");
  if (drive_ && a.ok()) drive_->transfer(a);
  Registers& r = regs_;
  a(r.commandList, r.received, r.is, r.ie, r.cmd, r.tfd, r.signature, r.sctl, r.serr, r.sact, r.ci);
  a(halted_, softReset_, failed_.tag, failed_.status, failed_.error);
  a.require(r.commandList % 1024 == 0 && r.received % 256 == 0, "an AHCI port's lists");
  // A command that is begun is done before anything is saved: the drive waits for nothing.
  a.require(!drive_ || drive_->phase() == IdeDrive::Phase::idle, "a command that an AHCI port is at");
  if (a.loading() && !a.ok()) {
    regs_ = {};
    halted_ = softReset_ = false;
    failed_ = {};
    if (drive_) drive_->reset();
  }
  updatePendingLocked();
}

bool AhciController::isQuiet() {
  return std::ranges::all_of(ports_, [](auto& port) { return port->isQuiet(); });
}

int AhciController::quiesce() {
  int error = 0;
  for (auto& port : ports_) {
    if (int failed = port->quiesce(); error == 0) error = failed;
  }
  return error;
}

void AhciController::transfer(Archive& a) {
  PciFunction::transfer(a);
  for (auto& port : ports_) port->transfer(a);
  {
    std::lock_guard lock(mutex_);
    a(interrupts_, is_);
    a.require(is_ >> kPorts == 0, "the interrupts of AHCI ports");
    if (a.loading() && !a.ok()) interrupts_ = false, is_ = 0;
  }
  if (a.loading()) update();
}

}  // namespace lodge
