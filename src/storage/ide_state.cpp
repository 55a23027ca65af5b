// SPDX-License-Identifier: Apache-2.0
// How IDE channels and their drives are saved and loaded.
#include <algorithm>

#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/ide_channel.h"
#include "storage/ide_controller.h"

namespace lodge {

using state::Archive;

namespace {
/// More than any command moves at once.
constexpr std::size_t kMostData = std::size_t{4} << 20;
}  // namespace

int IdeDrive::settle() {
  return disk_ ? disk_->settle() : 0;
}

void IdeDrive::transfer(Archive& a) {
  for (IdeTaskFile::Register* r : {&regs_.features, &regs_.count, &regs_.low, &regs_.mid, &regs_.high})
    a(r->now, r->before);
  a(regs_.device, regs_.status, regs_.error, phase_, interrupt_);
  a.require(phase_ <= Phase::dmaOut && phase_ != Phase::busy, "what an IDE drive waits for");
  std::vector<std::uint8_t> data = *data_;
  a(data);
  a.require(data.size() <= kMostData, "an IDE drive's data");
  if (a.mayApply()) {
    data_ = std::make_shared<std::vector<std::uint8_t>>(std::move(data));
    job_ = {};
  } else if (a.loading()) {
    phase_ = Phase::idle;
  }
}

void AtaDisk::transfer(Archive& a) {
  IdeDrive::transfer(a);
  Transfer& t = transfer_;
  a(t.lba, t.left, t.block, t.write, t.dma, t.data, multiple_, heads_, sectorsPerTrack_, cylinders_);
  a.require(multiple_ <= kMaxMultiple && (multiple_ & (multiple_ - 1)) == 0, "a disk's sectors a block");
  a.require(heads_ >= 1 && heads_ <= 16 && sectorsPerTrack_ >= 1 && sectorsPerTrack_ <= 255 && cylinders_ <= 0xffff,
            "a disk's geometry");
  if (phase() != Phase::idle && t.data) {
    a.require(t.block >= 1 && t.block <= kDmaBlock && t.left >= 1 && t.left <= 0x10000, "a disk's transfer");
    a.require(t.lba < sectors() && t.left <= sectors() - t.lba && !(t.write && disk_->readOnly()),
              "where a disk's transfer goes");
    a.require(data().size() == std::size_t{blockSectors()} * ide::kSector, "the data of a disk's transfer");
  }
  if (a.loading() && !a.ok()) {
    transfer_ = {};
    heads_ = 16;
    sectorsPerTrack_ = 63;
    reset();
  }
}

void AtapiDrive::transfer(Archive& a) {
  IdeDrive::transfer(a);
  // The guest may have ejected what the machine was started with.
  bool medium = disk_ != nullptr;
  if (a.version() >= 2) a(medium);
  a.require(!medium || disk_ || a.version() < 2, "a CD-ROM drive's medium");
  if (a.mayApply() && !medium) disk_.reset();
  bool waiting = pending_ != nullptr;
  std::uint64_t limit = chunkLimit_, given = waiting ? given_ : 0;
  std::vector<std::uint8_t> pending = waiting ? *pending_ : Bytes();
  a(stage_, dma_, limit, waiting, pending, given, readLba_, readLeft_, senseKey_, senseCode_, changed_, changeEvent_,
    locked_, ejectWanted_);
  a.require(stage_ <= Stage::reading && limit <= 0xffff, "what a CD-ROM drive does");
  a.require(pending.size() <= kMostData && given <= pending.size(), "a CD-ROM drive's data");
  a.require(readLba_ <= sectors() && readLeft_ <= sectors() - readLba_, "what a CD-ROM drive reads");
  a.require(stage_ != Stage::packet || data().size() >= kPacketBytes, "a CD-ROM drive's packet");
  a.require(phase() == Phase::idle || phase() == Phase::busy || !data().empty(), "a CD-ROM drive's data");
  if (a.mayApply()) {
    chunkLimit_ = limit;
    given_ = given;
    pending_ = waiting ? std::make_shared<Bytes>(std::move(pending)) : nullptr;
  } else if (a.loading()) {
    reset();
  }
}

bool IdeChannel::isQuiet() {
  std::lock_guard lock(mutex_);
  return inFlight_ == 0;
}

int IdeChannel::quiesce() {
  std::unique_lock lock(mutex_);
  landed_.wait(lock, [this] { return inFlight_ == 0; });
  int error = 0;
  for (auto& drive : drives_) {
    if (int failed = drive ? drive->settle() : 0; error == 0) error = failed;
  }
  return error;
}

void IdeChannel::transfer(Archive& a) {
  std::lock_guard lock(mutex_);
  for (auto& drive : drives_) {
    bool there = drive != nullptr;
    a(there);
    a.require(there == (drive != nullptr), "a drive that is not there");
    if (drive && a.ok()) drive->transfer(a);
  }
  std::uint64_t at = at_;
  a(selected_, working_, control_, line_, at, master_.command, master_.status, master_.table, master_.next,
    master_.address, master_.left, master_.last);
  a.require(selected_ <= 1 && working_ <= 1, "an IDE channel's drive");
  a.require(at == 0 || (drives_[working_ & 1] && at < drives_[working_ & 1]->data().size()), "an IDE channel's place");
  if (a.mayApply()) {
    at_ = at;
    setLineLocked(line_);
  } else if (a.loading()) {
    selected_ = working_ = 0;
    master_ = {};
    resetDrivesLocked();
  }
}

bool IdeController::isQuiet() {
  return std::ranges::all_of(channels_, [](auto& channel) { return channel->isQuiet(); });
}

int IdeController::quiesce() {
  int error = 0;
  for (auto& channel : channels_) {
    if (int failed = channel->quiesce(); error == 0) error = failed;
  }
  return error;
}

void IdeController::transfer(Archive& a) {
  PciFunction::transfer(a);
  for (auto& channel : channels_) channel->transfer(a);
}

}  // namespace lodge
