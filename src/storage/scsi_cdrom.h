// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "storage/atapi_drive.h"
#include "storage/scsi_unit.h"

namespace lodge {

/// A CD-ROM drive as a SCSI unit: the packets of an ATAPI drive are SCSI commands. One command at a time.
class ScsiCdrom : public ScsiUnit {
 public:
  /// `medium`: null for an empty drive.
  explicit ScsiCdrom(std::shared_ptr<Disk> medium) : drive_(std::move(medium)) {}
  void execute(const ScsiCommand& command, Completion done) override;
  void transfer(state::Archive& a) override {
    std::lock_guard lock(mutex_);
    drive_.transfer(a);
    a.require(drive_.phase() == IdeDrive::Phase::idle, "a command that a SCSI CD-ROM drive is at");
    if (a.loading() && !a.ok()) drive_.reset();
  }
  /// As AtapiDrive::change().
  bool change(std::shared_ptr<Disk> medium, bool force);

 private:
  struct Running {
    ScsiCommand command;
    Completion done;
    ScsiResult result{};
    bool senseAsked = false;
    bool working = false;  ///< a request to the disk is under way
  };
  using Work = std::function<void()>;

  void advance();
  Work nextLocked();
  void beginLocked(const std::array<std::uint8_t, 16>& cdb);
  Work followLocked();
  Work finishLocked();
  Work jobLocked(IdeDrive::Job job);
  /// MODE SENSE (6) as the ten-byte form that the drive knows.
  static std::array<std::uint8_t, 16> widened(const std::array<std::uint8_t, 16>& cdb);

  std::mutex mutex_;
  AtapiDrive drive_;
  std::array<std::uint8_t, 16> packet_{};
  std::deque<Running> queue_;
  bool begun_ = false;    ///< the first of the queue is with the drive
  bool serving_ = false;  ///< a thread is in advance()
};

}  // namespace lodge
