// SPDX-License-Identifier: Apache-2.0
// The packet interface: chunks, sectors, sense. The commands' answers are in atapi_commands.cpp.
#include "storage/atapi_drive.h"

namespace lodge {

namespace {
// Interrupt reason, in the sector count register (ATA/ATAPI-6, 9.9).
constexpr std::uint8_t kCommand = 1, kToHost = 2;
}  // namespace

AtapiDrive::AtapiDrive(std::shared_ptr<Disk> medium) : IdeDrive(std::move(medium), true) {
  AtapiDrive::reset();
}

void AtapiDrive::reset() {
  stage_ = Stage::none;
  pending_.reset();
  given_ = 0;
  readLeft_ = 0;
  locked_ = false;
  IdeDrive::reset();
}

std::uint32_t AtapiDrive::sectors() const {
  constexpr std::uint64_t kMost = 0x7fff'ffff;
  return disk_ ? static_cast<std::uint32_t>(std::min(disk_->sizeBytes() / kSector, kMost)) : 0;
}

void AtapiDrive::removeMedium() {
  if (disk_) retired_ = std::exchange(disk_, nullptr);
}

bool AtapiDrive::change(std::shared_ptr<Disk> medium, bool force) {
  if (locked_ && !force) {
    ejectWanted_ = true;
    return false;
  }
  removeMedium();
  disk_ = std::move(medium);
  locked_ = false;
  changed_ = disk_ != nullptr;
  changeEvent_ = true;
  return true;
}

void AtapiDrive::command(std::uint8_t code) {
  stage_ = Stage::none;
  readLeft_ = 0;
  pending_.reset();
  if (retired_.use_count() == 1) retired_.reset();
  regs_.error = 0;
  switch (code) {
    case 0xa0:
      dma_ = (regs_.features.now & 1) != 0;
      chunkLimit_ = std::size_t{regs_.high.now} << 8 | regs_.mid.now;
      stage_ = Stage::packet;
      regs_.count.now = kCommand;
      return wantData(Phase::pioOut, kPacketBytes);
    case 0xa1:
      return identify();
    case 0x08: {  // DEVICE RESET
      bool locked = locked_;
      reset();
      locked_ = locked;
      return;
    }
    case 0x90:
      setSignature();
      complete(0);
      regs_.error = 1;
      return;
    case 0xec:  // IDENTIFY DEVICE, which a packet device refuses with its signature
      setSignature();
      return complete(ide::kAborted);
    case 0xe1:
    case 0xe0:
    case 0xe2:
    case 0xe3:
    case 0xe6:
    case 0xef:
      return complete(0);
    case 0xe5:
      regs_.count.now = 0xff;
      return complete(0);
    default:
      return complete(ide::kAborted);
  }
}

void AtapiDrive::identify() {
  IdentifyWords id;
  id.word(0, 0x85c0).text(10, 10, "LODGECD1").text(23, 4, "1.0").text(27, 20, "Lodge DVD-ROM");
  id.word(49, 0x0f00).word(50, 0x4000).word(53, 7).word(62, 7).word(63, 7).word(64, 3);
  id.word(65, 120).word(66, 120).word(67, 120).word(68, 120);
  id.word(80, 0x70).word(81, 0x16).word(82, 0x4210).word(83, 0x4000).word(84, 0x4000).word(85, 0x4210);
  id.word(87, 0x4000).word(88, 0x203f);
  stage_ = Stage::none;
  offerData(Phase::pioIn, id.take());
  raiseInterrupt();
}

void AtapiDrive::blockMoved() {
  switch (stage_) {
    case Stage::packet: {
      Packet packet{};
      std::copy_n(data().begin(), kPacketBytes, packet.begin());
      return execute(packet);
    }
    case Stage::answer:
    case Stage::reading:
      return nextChunk();
    case Stage::none:
      return complete(0, false);
  }
}

void AtapiDrive::answer(Bytes bytes, std::size_t limit) {
  bytes.resize(std::min(bytes.size(), limit));
  if (bytes.empty()) return succeed();
  pending_ = std::make_shared<Bytes>(std::move(bytes));
  given_ = 0;
  stage_ = Stage::answer;
  nextChunk();
}

void AtapiDrive::readSectors(std::uint32_t lba, std::uint32_t count) {
  if (lba > sectors() || count > sectors() - lba) return fail(sense::illegal, 0x2100);
  if (count == 0) return succeed();
  readLba_ = lba;
  readLeft_ = count;
  stage_ = Stage::reading;
  nextRead();
}

void AtapiDrive::nextRead() {
  std::uint32_t count = std::min(readLeft_, kReadAhead);
  pending_ = std::make_shared<Bytes>(std::size_t{count} * kSector);
  given_ = 0;
  startJob(Job::Kind::read, std::uint64_t{readLba_} * kSector, pending_);
  readLba_ += count;
  readLeft_ -= count;
}

void AtapiDrive::jobDone(int error) {
  if (error != 0) return fail(sense::medium, 0x1100);
  nextChunk();
}

// With DMA all that was read is one chunk; with PIO the guest has said how much it takes between two interrupts.
void AtapiDrive::nextChunk() {
  if (!pending_ || given_ == pending_->size()) return readLeft_ != 0 ? nextRead() : succeed();
  std::size_t left = pending_->size() - given_;
  if (dma_) {
    auto whole = std::make_shared<Bytes>(pending_->begin() + static_cast<std::ptrdiff_t>(given_), pending_->end());
    given_ = pending_->size();
    return offerData(Phase::dmaIn, std::move(whole));
  }
  std::size_t limit = chunkLimit_ == 0 ? 0xfffe : chunkLimit_;
  std::size_t count = std::min(left, limit);
  if (count < left && count > 1) count &= ~std::size_t{1};
  auto first = pending_->begin() + static_cast<std::ptrdiff_t>(given_);
  auto chunk = std::make_shared<Bytes>(first, first + static_cast<std::ptrdiff_t>(count));
  given_ += count;
  regs_.mid.now = static_cast<std::uint8_t>(count);
  regs_.high.now = static_cast<std::uint8_t>(count >> 8);
  regs_.count.now = kToHost;
  offerData(Phase::pioIn, std::move(chunk));
  raiseInterrupt();
}

void AtapiDrive::succeed() {
  stage_ = Stage::none;
  pending_.reset();
  senseKey_ = sense::none;
  senseCode_ = 0;
  regs_.count.now = kToHost | kCommand;
  complete(0);
}

void AtapiDrive::fail(std::uint8_t key, unsigned code) {
  stage_ = Stage::none;
  pending_.reset();
  readLeft_ = 0;
  senseKey_ = key;
  senseCode_ = code;
  regs_.count.now = kToHost | kCommand;
  complete(static_cast<std::uint8_t>(key << 4 | (key == sense::illegal ? ide::kAborted : 0)));
  regs_.status |= ide::kError;
}

}  // namespace lodge
