// SPDX-License-Identifier: Apache-2.0
#include "storage/scsi_cdrom.h"

#include <algorithm>

#include "storage/scsi_bytes.h"

namespace lodge {

namespace {
constexpr std::uint8_t kPacketCommand = 0xa0, kRequestSense = 0x03, kModeSense6 = 0x1a, kModeSense10 = 0x5a;
constexpr std::size_t kSenseBytes = 18;
}  // namespace

void ScsiCdrom::execute(const ScsiCommand& command, Completion done) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({command, std::move(done)});
  }
  advance();
}

bool ScsiCdrom::change(std::shared_ptr<Disk> medium, bool force) {
  std::lock_guard lock(mutex_);
  return drive_.change(std::move(medium), force);
}

// One thread at a time; work outside the mutex may end on this thread and comes back here.
void ScsiCdrom::advance() {
  std::unique_lock lock(mutex_);
  if (serving_) return;
  serving_ = true;
  while (Work work = nextLocked()) {
    lock.unlock();
    work();
    lock.lock();
  }
  serving_ = false;
}

ScsiCdrom::Work ScsiCdrom::nextLocked() {
  if (queue_.empty() || queue_.front().working) return nullptr;
  if (!begun_) {
    begun_ = true;
    beginLocked(queue_.front().command.cdb);
  }
  return followLocked();
}

std::array<std::uint8_t, 16> ScsiCdrom::widened(const std::array<std::uint8_t, 16>& cdb) {
  if (cdb[0] != kModeSense6) return cdb;
  std::array<std::uint8_t, 16> wide{kModeSense10, cdb[1], cdb[2]};
  wide[8] = static_cast<std::uint8_t>(std::min(cdb[4] + 4, 255));
  return wide;
}

void ScsiCdrom::beginLocked(const std::array<std::uint8_t, 16>& cdb) {
  packet_ = widened(cdb);
  drive_.registers().features.write(1);  // data by DMA: in pieces as they come
  drive_.command(kPacketCommand);
}

ScsiCdrom::Work ScsiCdrom::followLocked() {
  for (;;) {
    Running& running = queue_.front();
    switch (drive_.phase()) {
      case IdeDrive::Phase::busy:
        running.working = true;
        return jobLocked(drive_.takeJob());
      case IdeDrive::Phase::pioOut:
      case IdeDrive::Phase::dmaOut:
        drive_.data().assign(packet_.begin(), packet_.begin() + AtapiDrive::kPacketBytes);
        drive_.blockMoved();
        break;
      case IdeDrive::Phase::pioIn:
      case IdeDrive::Phase::dmaIn: {
        std::vector<std::uint8_t> data = drive_.data();
        if (running.senseAsked) {
          data.resize(kSenseBytes);
          running.result.senseKey = data[2] & 15;
          running.result.senseCode = static_cast<std::uint16_t>(data[12] << 8 | data[13]);
        } else {
          if (running.command.cdb[0] == kModeSense6 && data.size() >= 8) {
            // The header of the six-byte form: length, medium type, device, descriptors.
            data.erase(data.begin() + 1, data.begin() + 5);
            data[0] = static_cast<std::uint8_t>(data.size() - 1);
            data[1] = data[2] = data[3] = 0;
            data.resize(std::min<std::size_t>(data.size(), running.command.cdb[4]));
          }
          std::size_t moved = scsi::scatter(running.command.toInitiator, running.result.moved, data);
          running.result.moved += moved;
          running.result.overrun = running.result.overrun || moved < data.size();
        }
        drive_.blockMoved();
        break;
      }
      case IdeDrive::Phase::idle:
        if (running.senseAsked || (drive_.registers().status & ide::kError) == 0) return finishLocked();
        // The reason is fetched at once.
        running.senseAsked = true;
        running.result.status = scsi::kCheckCondition;
        beginLocked({kRequestSense, 0, 0, 0, kSenseBytes});
        break;
    }
  }
}

ScsiCdrom::Work ScsiCdrom::finishLocked() {
  Running ended = std::move(queue_.front());
  queue_.pop_front();
  begun_ = false;
  drive_.takeInterrupt();
  return [ended = std::move(ended)] { ended.done(ended.result); };
}

ScsiCdrom::Work ScsiCdrom::jobLocked(IdeDrive::Job job) {
  return [this, job = std::move(job)] {
    auto vector = std::make_shared<iovec>();
    auto done = [this, data = job.data, disk = job.disk, vector](int error) {
      {
        std::lock_guard lock(mutex_);
        queue_.front().working = false;
        drive_.jobDone(error);
      }
      advance();
    };
    if (job.kind != IdeDrive::Job::Kind::read || !job.data) return done(EIO);
    *vector = {job.data->data(), job.data->size()};
    job.disk->read(job.offset, {vector.get(), 1}, done);
  };
}

}  // namespace lodge
