// SPDX-License-Identifier: Apache-2.0
// Command lists (AHCI 1.3.1, 4.2 and 5): what a slot asks for goes to the drive, or, queued, to the disk.
#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "storage/ahci_defs.h"
#include "storage/ahci_port.h"

namespace lodge {

using namespace ahci;

namespace {
constexpr std::uint8_t kReadQueued = 0x60, kWriteQueued = 0x61, kReadLog = 0x2f, kPacket = 0xa0;
constexpr unsigned kLogDirectory = 0x00, kQueuedErrorLog = 0x10;
}  // namespace

// Does what there is to do, one thread at a time: work outside the mutex may end at once, on this thread, and comes
// back here.
void AhciPort::advance() {
  std::unique_lock lock(mutex_);
  if (serving_) return;
  serving_ = true;
  while (Work work = nextLocked()) {
    lock.unlock();
    work();
    lock.lock();
  }
  serving_ = false;
  lock.unlock();
  onInterrupt_();
}

AhciPort::Work AhciPort::nextLocked() {
  for (;;) {
    if (current_) {
      if (current_->working) return nullptr;
      if (Work work = followLocked()) return work;
      if (current_) return nullptr;
      continue;
    }
    if ((regs_.cmd & kStart) == 0 || halted_ || regs_.ci == 0 || !drive_) return nullptr;
    auto number = static_cast<unsigned>(std::countr_zero(regs_.ci));
    auto slot = fetchLocked(number);
    if (!slot) {
      fatalLocked(kHostBusError);
      return nullptr;
    }
    if (Work work = beginLocked(number, *slot)) return work;
  }
}

std::optional<AhciPort::Slot> AhciPort::fetchLocked(unsigned number) {
  Slot slot{};
  slot.header = regs_.commandList + 32ull * number;
  std::array<std::uint8_t, 16> header{};
  if (!memory_.readObject(Gpa{slot.header}, header)) return std::nullopt;
  slot.flags = loadLe<std::uint32_t>(header.data());
  slot.table = loadLe<std::uint64_t>(header.data() + 8) & ~std::uint64_t{0x7f};
  if (!memory_.readObject(Gpa{slot.table}, slot.fis)) return std::nullopt;
  return slot;
}

AhciPort::Work AhciPort::beginLocked(unsigned number, const Slot& slot) {
  bool isCommand = slot.fis[0] == kFisHostToDevice && (slot.fis[1] & 0x80) != 0;
  if (!isCommand) {
    controlLocked(number, slot);
    return nullptr;
  }
  std::uint8_t code = slot.fis[2];
  if ((code == kReadQueued || code == kWriteQueued) && disk_) return queuedLocked(number, slot);
  bool log = slot.fis[4] == kLogDirectory || slot.fis[4] == kQueuedErrorLog;
  if (code == kReadLog && disk_ && log) return readLogLocked(number, slot);
  auto buffers = mapTableLocked(slot);
  IdeTaskFile& r = drive_->registers();
  r.features = {slot.fis[3], slot.fis[11]};
  r.low = {slot.fis[4], slot.fis[8]};
  r.mid = {slot.fis[5], slot.fis[9]};
  r.high = {slot.fis[6], slot.fis[10]};
  r.count = {slot.fis[12], slot.fis[13]};
  r.device = slot.fis[7];
  current_ = Current{number, (slot.flags & kHeaderWrite) != 0, slot.table, slot.header, std::move(buffers)};
  current_->packetDue = code == kPacket && drive_->isPacketDevice();
  regs_.tfd |= ide::kBusy;
  drive_->command(code);
  return nullptr;
}

/// A control FIS: software reset when SRST goes back to 0 (Serial ATA 3.0, 11.4).
void AhciPort::controlLocked(unsigned number, const Slot& slot) {
  bool reset = slot.fis[0] == kFisHostToDevice && (slot.fis[15] & 4) != 0;
  if (softReset_ && !reset) {
    drive_->reset();
    sendRegistersLocked(false);
  }
  softReset_ = reset;
  if (reset && (slot.flags & kHeaderClearBusy) == 0) regs_.tfd |= ide::kBusy;
  regs_.ci &= ~(1u << number);
}

/// The regions up to the first that is not memory: whether that matters depends on how much is moved. (SeaBIOS gives
/// commands without data a region at 0.)
std::shared_ptr<GuestBuffers> AhciPort::mapTableLocked(const Slot& slot) {
  auto buffers = std::make_shared<GuestBuffers>(memory_);
  for (std::uint32_t n = 0; n < slot.flags >> 16; ++n) {
    std::array<std::uint8_t, 16> region{};
    if (!memory_.readObject(Gpa{slot.table + kRegionsAt + 16ull * n}, region)) break;
    auto address = loadLe<std::uint64_t>(region.data()) & ~std::uint64_t{1};
    std::uint64_t length = (loadLe<std::uint32_t>(region.data() + 12) & 0x3f'ffff) + 1;
    if (!buffers->add(address, length)) break;
  }
  return buffers;
}

// The slot is free at once; the tag stays in PxSACT until the device says that it is done (5.5.2).
AhciPort::Work AhciPort::queuedLocked(unsigned number, const Slot& slot) {
  const auto& f = slot.fis;
  bool write = f[2] == kWriteQueued;
  unsigned tag = f[12] >> 3;
  std::uint64_t lba = f[4] | std::uint64_t{f[5]} << 8 | std::uint64_t{f[6]} << 16 | std::uint64_t{f[8]} << 24 |
                      std::uint64_t{f[9]} << 32 | std::uint64_t{f[10]} << 40;
  std::uint64_t count = f[3] | std::uint64_t{f[11]} << 8;
  if (count == 0) count = 0x10000;
  std::uint64_t sectors = disk_->sizeBytes() / ide::kSector;
  auto buffers = mapTableLocked(slot);
  if (buffers->bytes() < count * ide::kSector) {
    fatalLocked(kHostBusError);
    return nullptr;
  }
  regs_.ci &= ~(1u << number);
  std::uint8_t error = 0;
  if (tag != number || (write && disk_->readOnly())) error = ide::kAborted;
  if (lba > sectors || count > sectors - lba) error = ide::kNotFound;
  regs_.tfd &= ~std::uint32_t{ide::kBusy};
  if (error != 0) {
    failed_ = {static_cast<std::uint8_t>(tag), ide::kReady | ide::kError, error};
    sendDeviceBitsLocked(0, failed_.status, error);
    fatalLocked(kTaskFileError);
    return nullptr;
  }
  buffers->truncate(count * ide::kSector);
  ++inFlight_;
  return [this, buffers, write, lba, tag, generation = generation_, disk = disk_] {
    auto done = [this, buffers, write, tag, generation](int failed) {
      queuedDone(tag, write, failed, generation, *buffers);
    };
    if (write)
      disk->write(lba * ide::kSector, buffers->vectors(), done);
    else
      disk->read(lba * ide::kSector, buffers->vectors(), done);
  };
}

void AhciPort::queuedDone(unsigned tag, bool write, int error, unsigned generation, const GuestBuffers& buffers) {
  if (!write) buffers.written();
  bool ours = false;
  {
    std::lock_guard lock(mutex_);
    ours = generation == generation_;
    if (ours && error == 0) {
      sendDeviceBitsLocked(1u << tag, ide::kReady | ide::kSeekDone, 0);
    } else if (ours) {
      failed_ = {static_cast<std::uint8_t>(tag), ide::kReady | ide::kError,
                 write ? ide::kAborted : ide::kUncorrectable};
      sendDeviceBitsLocked(0, failed_.status, failed_.error);
      fatalLocked(kTaskFileError);
    }
  }
  if (ours) advance();
  // Last: who waits for this may take the port away.
  std::lock_guard lock(mutex_);
  if (--inFlight_ == 0) landed_.notify_all();
}

// A page of a log: the directory, which says how many pages each has (ACS-3, A.2), or that of queued commands' errors
// (A.14), by which a driver learns which command failed.
AhciPort::Work AhciPort::readLogLocked(unsigned number, const Slot& slot) {
  auto buffers = mapTableLocked(slot);
  std::array<std::uint8_t, ide::kSector> page{};
  if (slot.fis[4] == kLogDirectory) {
    page[0] = 1;  // version 0x0001
    page[2 * kQueuedErrorLog] = 1;
  } else {
    page = {failed_.tag, 0, failed_.status, failed_.error};
    std::uint8_t sum = 0;
    for (std::uint8_t byte : page) sum = static_cast<std::uint8_t>(sum + byte);
    page.back() = static_cast<std::uint8_t>(-sum);
  }
  auto moved = static_cast<std::uint32_t>(buffers->write(0, page));
  (void)memory_.writeObject(Gpa{slot.header + 4}, moved);
  regs_.ci &= ~(1u << number);
  IdeTaskFile& r = drive_->registers();
  r.status = ide::kReady | ide::kSeekDone;
  r.error = 0;
  regs_.tfd = r.status;
  sendPioSetupLocked(page.size(), true);
  return nullptr;
}

// Follows what the drive asks for until it waits for the disk or is done.
AhciPort::Work AhciPort::followLocked() {
  for (;;) {
    IdeDrive& drive = *drive_;
    auto phase = drive.phase();
    bool interrupt = drive.takeInterrupt();
    switch (phase) {
      case IdeDrive::Phase::busy:
        current_->working = true;
        return jobLocked(drive.takeJob());
      case IdeDrive::Phase::pioIn:
      case IdeDrive::Phase::dmaIn:
        if (interrupt) sendPioSetupLocked(drive.data().size(), true);
        moveLocked(true) ? drive.blockMoved() : drive.dmaFailed();
        break;
      case IdeDrive::Phase::pioOut:
      case IdeDrive::Phase::dmaOut:
        moveLocked(false) ? drive.blockMoved() : drive.dmaFailed();
        break;
      case IdeDrive::Phase::idle: {
        const IdeTaskFile& r = drive.registers();
        regs_.tfd = r.status | std::uint32_t{r.error} << 8;
        bool failed = (r.status & (ide::kError | ide::kFault)) != 0;
        // A read by PIO ends with its last data and its own interrupt.
        if (interrupt || failed) sendRegistersLocked(true);
        if (failed) fatalLocked(kTaskFileError);
        finishLocked();
        return nullptr;
      }
    }
  }
}

bool AhciPort::moveLocked(bool toGuest) {
  std::span<std::uint8_t> data(drive_->data());
  if (current_->packetDue) {
    current_->packetDue = false;
    return memory_.read(Gpa{current_->table + kPacketAt}, std::as_writable_bytes(data));
  }
  const GuestBuffers& buffers = *current_->buffers;
  std::size_t moved = toGuest ? buffers.write(current_->moved, data) : buffers.read(current_->moved, data);
  current_->moved += moved;
  if (moved == data.size()) return true;
  raiseLocked(kHostBusError);
  return false;
}

void AhciPort::finishLocked() {
  auto count = static_cast<std::uint32_t>(current_->moved);
  (void)memory_.writeObject(Gpa{current_->header + 4}, count);
  // A command that failed stays in PxCI and PxCMD.CCS, so that the driver can see which it was (6.2.2.1).
  if (!halted_) regs_.ci &= ~(1u << current_->slot);
  current_.reset();
}

AhciPort::Work AhciPort::jobLocked(IdeDrive::Job job) {
  ++inFlight_;
  return [this, job = std::move(job), generation = generation_] {
    auto done = [this, generation, data = job.data](int error) {
      bool ours = false;
      {
        std::lock_guard lock(mutex_);
        ours = generation == generation_ && current_;
        if (ours) {
          current_->working = false;
          drive_->jobDone(error);
        }
      }
      if (ours) advance();
      std::lock_guard lock(mutex_);
      if (--inFlight_ == 0) landed_.notify_all();
    };
    using Kind = IdeDrive::Job::Kind;
    if (job.kind == Kind::flush) return job.disk->flush(done);
    if (job.kind == Kind::none || !job.data) return done(EIO);
    const iovec whole{job.data->data(), job.data->size()};
    // The iovec must stay until completion, as the bytes do.
    auto vector = std::make_shared<iovec>(whole);
    auto keep = [done, vector](int error) { done(error); };
    if (job.kind == Kind::read)
      job.disk->read(job.offset, {vector.get(), 1}, keep);
    else
      job.disk->write(job.offset, {vector.get(), 1}, keep);
  };
}

}  // namespace lodge
