// SPDX-License-Identifier: Apache-2.0
#include "storage/ata_disk.h"

namespace lodge {

namespace {
constexpr std::uint64_t kMax28 = 0x0fff'ffff, kMax48 = 0xffff'ffff'ffff;
constexpr unsigned kMaxCylinders = 16383;
}  // namespace

AtaDisk::AtaDisk(std::shared_ptr<Disk> disk, std::string serial, bool serialAta)
    : IdeDrive(std::move(disk), false), serial_(std::move(serial)), serialAta_(serialAta) {
  cylinders_ = static_cast<unsigned>(std::min<std::uint64_t>(sectors() / (heads_ * sectorsPerTrack_), kMaxCylinders));
  AtaDisk::reset();
}

void AtaDisk::reset() {
  transfer_ = {};
  IdeDrive::reset();
}

void AtaDisk::command(std::uint8_t code) {
  transfer_ = {};
  regs_.error = 0;
  if (startTransfer(code)) return;
  switch (code) {
    case 0xec:
      return identify();
    case 0xe7:  // FLUSH CACHE, FLUSH CACHE EXT
    case 0xea:
      return startJob(Job::Kind::flush, 0, nullptr);
    case 0x90:  // EXECUTE DEVICE DIAGNOSTIC
      setSignature();
      complete(0);
      regs_.error = 1;
      return;
    case 0x91: {  // INITIALIZE DEVICE PARAMETERS
      unsigned heads = (regs_.device & 15u) + 1;
      if (regs_.count.now == 0) return complete(ide::kAborted);
      heads_ = heads;
      sectorsPerTrack_ = regs_.count.now;
      cylinders_ =
          static_cast<unsigned>(std::min<std::uint64_t>(sectors() / (heads_ * sectorsPerTrack_), kMaxCylinders));
      return complete(0);
    }
    case 0xc6:
      return setMultiple();
    case 0xef:
      return setFeatures();
    case 0xf8:
    case 0x27:
      return nativeMax(code == 0x27);
    case 0x40:  // READ VERIFY, READ VERIFY EXT, SEEK
    case 0x41:
    case 0x42:
    case 0x70: {
      std::uint64_t lba = 0;
      return complete(address(code == 0x42, lba) ? 0 : ide::kNotFound);
    }
    case 0xe5:  // CHECK POWER MODE: active
      regs_.count.now = 0xff;
      return complete(0);
    case 0x10:  // RECALIBRATE; IDLE and STANDBY of all kinds
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
      return complete(0);
    default:
      return complete(ide::kAborted);
  }
}

bool AtaDisk::startTransfer(std::uint8_t code) {
  switch (code) {
    case 0x20:
    case 0x21:
    case 0x24:
      begin(false, code == 0x24, false, 1);
      return true;
    case 0x30:
    case 0x31:
    case 0x34:
      begin(true, code == 0x34, false, 1);
      return true;
    case 0xc4:
    case 0x29:
      begin(false, code == 0x29, false, multiple_);
      return true;
    case 0xc5:
    case 0x39:
      begin(true, code == 0x39, false, multiple_);
      return true;
    case 0xc8:
    case 0xc9:
    case 0x25:
      begin(false, code == 0x25, true, kDmaBlock);
      return true;
    case 0xca:
    case 0xcb:
    case 0x35:
      begin(true, code == 0x35, true, kDmaBlock);
      return true;
    default:
      return false;
  }
}

// False: beyond the disk, or no such sector.
bool AtaDisk::address(bool wide, std::uint64_t& lba) const {
  if (wide) {
    lba = std::uint64_t{regs_.high.before} << 40 | std::uint64_t{regs_.mid.before} << 32 |
          std::uint64_t{regs_.low.before} << 24 | std::uint64_t{regs_.high.now} << 16 |
          std::uint64_t{regs_.mid.now} << 8 | regs_.low.now;
  } else if ((regs_.device & ide::kLba) != 0) {
    lba = std::uint64_t{regs_.device & 15u} << 24 | std::uint64_t{regs_.high.now} << 16 |
          std::uint64_t{regs_.mid.now} << 8 | regs_.low.now;
  } else {
    std::uint64_t cylinder = std::uint64_t{regs_.high.now} << 8 | regs_.mid.now;
    unsigned head = regs_.device & 15u;
    if (regs_.low.now == 0 || regs_.low.now > sectorsPerTrack_ || head >= heads_) return false;
    lba = (cylinder * heads_ + head) * sectorsPerTrack_ + regs_.low.now - 1u;
  }
  return lba < sectors();
}

void AtaDisk::begin(bool write, bool wide, bool dma, std::uint32_t block) {
  if (block == 0) return complete(ide::kAborted);  // no SET MULTIPLE MODE yet
  std::uint64_t lba = 0;
  std::uint32_t count = wide ? std::uint32_t{regs_.count.before} << 8 | regs_.count.now : regs_.count.now;
  if (count == 0) count = wide ? 0x10000 : 0x100;
  if (!address(wide, lba) || count > sectors() - lba) return complete(ide::kNotFound);
  if (write && disk_->readOnly()) return complete(ide::kAborted);
  transfer_ = {lba, count, block, write, dma, true};
  nextBlock(true);
}

void AtaDisk::nextBlock(bool first) {
  std::size_t bytes = std::size_t{blockSectors()} * ide::kSector;
  if (!transfer_.write) {
    return startJob(Job::Kind::read, transfer_.lba * ide::kSector, std::make_shared<std::vector<std::uint8_t>>(bytes));
  }
  wantData(transfer_.dma ? Phase::dmaOut : Phase::pioOut, bytes);
  if (!first && !transfer_.dma) raiseInterrupt();
}

void AtaDisk::blockMoved() {
  if (transfer_.data && transfer_.write) {
    return startJob(Job::Kind::write, transfer_.lba * ide::kSector,
                    std::make_shared<std::vector<std::uint8_t>>(std::move(data())));
  }
  if (!transfer_.data) return complete(0, false);  // IDENTIFY's answer was read
  transfer_.lba += blockSectors();
  transfer_.left -= blockSectors();
  if (transfer_.left != 0) return nextBlock(false);
  complete(0, transfer_.dma);
}

void AtaDisk::jobDone(int error) {
  if (error != 0) return complete(transfer_.write ? ide::kAborted : ide::kUncorrectable);
  if (!transfer_.data) return complete(0);  // a flush
  if (!transfer_.write) {
    offerRead(transfer_.dma ? Phase::dmaIn : Phase::pioIn);
    if (!transfer_.dma) raiseInterrupt();
    return;
  }
  transfer_.lba += blockSectors();
  transfer_.left -= blockSectors();
  if (transfer_.left != 0) return nextBlock(false);
  complete(0);
}

void AtaDisk::identify() {
  std::uint64_t total = sectors();
  IdentifyWords id;
  id.word(0, 0x0040).word(1, cylinders_).word(3, heads_).word(6, sectorsPerTrack_);
  id.text(10, 10, serial_).text(23, 4, "1.0").text(27, 20, "Lodge disk");
  id.word(47, 0x8000 | kMaxMultiple).word(48, 1).word(49, 0x0f00).word(50, 0x4000);
  id.word(51, 0x200).word(52, 0x200).word(53, 7).word(54, cylinders_).word(55, heads_).word(56, sectorsPerTrack_);
  id.dword(57, std::uint64_t{cylinders_} * heads_ * sectorsPerTrack_);
  id.word(59, multiple_ != 0 ? 0x100 | multiple_ : 0).dword(60, std::min(total, kMax28));
  id.word(63, 0x07).word(64, 3).word(65, 120).word(66, 120).word(67, 120).word(68, 120);
  // ATA-4 to ATA-6; power management, write cache, device reset, 48-bit addresses, both flushes.
  id.word(80, 0x70).word(81, 0x16).word(82, 0x4028).word(83, 0x7400).word(84, 0x4000);
  id.word(85, 0x4028).word(86, 0x3400).word(87, 0x4000).word(88, 0x203f).word(93, serialAta_ ? 0 : 0x600b);
  // Queues of 32 commands; the SATA generations 1 to 3 (Serial ATA 3.0, 13.2.1); logs, which the port reads.
  if (serialAta_) id.word(75, 31).word(76, 0x010e).word(80, 0x1f0).word(84, 0x4020).word(87, 0x4020);
  id.dword(100, total & 0xffff'ffff).dword(102, total >> 32);
  offerData(Phase::pioIn, id.take());
  raiseInterrupt();
}

void AtaDisk::setMultiple() {
  unsigned count = regs_.count.now;
  if (count > kMaxMultiple || (count & (count - 1)) != 0) return complete(ide::kAborted);
  multiple_ = count;
  complete(0);
}

void AtaDisk::setFeatures() {
  switch (regs_.features.now) {
    case 0x02:  // write cache on, off; transfer mode; read look-ahead off, on; defaults kept or not
    case 0x82:
    case 0x03:
    case 0x55:
    case 0xaa:
    case 0x66:
    case 0xcc:
      return complete(0);
    default:
      return complete(ide::kAborted);
  }
}

void AtaDisk::nativeMax(bool wide) {
  std::uint64_t last = sectors() == 0 ? 0 : sectors() - 1;
  showAddress(std::min(last, wide ? kMax48 : kMax28 - 1), wide);
  complete(0);
}

void AtaDisk::showAddress(std::uint64_t lba, bool wide) {
  auto byte = [lba](unsigned n) { return static_cast<std::uint8_t>(lba >> (8 * n)); };
  regs_.low = {byte(0), byte(3)};
  regs_.mid = {byte(1), byte(4)};
  regs_.high = {byte(2), byte(5)};
  if (!wide) regs_.device = static_cast<std::uint8_t>((regs_.device & 0xf0) | (byte(3) & 15));
}

}  // namespace lodge
