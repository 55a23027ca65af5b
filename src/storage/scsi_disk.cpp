// SPDX-License-Identifier: Apache-2.0
#include "storage/scsi_disk.h"

#include <algorithm>
#include <atomic>

#include "storage/scsi_bytes.h"

namespace lodge {

using namespace scsi;

namespace {
constexpr std::uint16_t kInvalidCommand = 0x2000, kOutOfRange = 0x2100, kInvalidField = 0x2400,
                        kParameterLength = 0x1a00, kWriteProtected = 0x2700, kReadError = 0x1100, kWriteError = 0x0c00;
constexpr std::uint64_t kMaxUnmapBlocks = 1u << 22, kMaxTransferBlocks = 1u << 16;
constexpr unsigned kMaxUnmapRanges = 256;

void fail(const ScsiUnit::Completion& done, std::uint8_t key, std::uint16_t code) {
  done(ScsiResult::failed(key, code));
}
}  // namespace

void ScsiDisk::execute(const ScsiCommand& command, Completion done) {
  const auto& c = command.cdb;
  switch (c[0]) {
    case 0x00:  // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
    case 0x1b:
    case 0x1e:
      return done({});
    case 0x03:  // REQUEST SENSE: nothing to tell, it came with the command that failed
      return answer(command, Bytes{0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, c[4], done);
    case 0x12:
      return inquiry(command, done);
    case 0x1a:
      return modeSense(command, false, done);
    case 0x5a:
      return modeSense(command, true, done);
    case 0x25: {
      Bytes data;
      put(data, std::min<std::uint64_t>(blocks() - 1, 0xffff'ffff), 4);
      put(data, kBlock, 4);
      return answer(command, std::move(data), 8, done);
    }
    case 0x9e:
      if ((c[1] & 0x1f) == 0x10) return capacity16(command, done);
      return fail(done, kIllegalRequest, kInvalidField);
    default:
      if (!executeMedium(command, done)) fail(done, kIllegalRequest, kInvalidCommand);
  }
}

bool ScsiDisk::executeMedium(const ScsiCommand& command, const Completion& done) {
  const auto* c = command.cdb.data();
  std::uint64_t six = c[4] == 0 ? 256 : c[4];
  Extent extent6{be(c + 1, 3) & 0x1f'ffff, six}, extent10{be(c + 2, 4), be(c + 7, 2)},
      extent12{be(c + 2, 4), be(c + 6, 4)}, extent16{be(c + 2, 8), be(c + 10, 4)};
  auto flush = [&] {
    disk_->flush(
        [done](int error) { done(error == 0 ? ScsiResult{} : ScsiResult::failed(kMediumError, kWriteError)); });
  };
  auto verify = [&](const Extent& e) { inRange(e) ? done({}) : fail(done, kIllegalRequest, kOutOfRange); };
  switch (c[0]) {
    case 0x08:
      transfer(command, extent6, false, done);
      return true;
    case 0x0a:
      transfer(command, extent6, true, done);
      return true;
    case 0x28:
      transfer(command, extent10, false, done);
      return true;
    case 0x2a:
      transfer(command, extent10, true, done);
      return true;
    case 0xa8:
      transfer(command, extent12, false, done);
      return true;
    case 0xaa:
      transfer(command, extent12, true, done);
      return true;
    case 0x88:
      transfer(command, extent16, false, done);
      return true;
    case 0x8a:
      transfer(command, extent16, true, done);
      return true;
    case 0x2f:  // VERIFY (10), (16), without data to compare
      (c[1] & 2) == 0 ? verify(extent10) : fail(done, kIllegalRequest, kInvalidField);
      return true;
    case 0x8f:
      (c[1] & 2) == 0 ? verify(extent16) : fail(done, kIllegalRequest, kInvalidField);
      return true;
    case 0x35:  // SYNCHRONIZE CACHE (10), (16)
    case 0x91:
      flush();
      return true;
    case 0x41:
      writeSame(command, extent10, done);
      return true;
    case 0x93:
      writeSame(command, extent16, done);
      return true;
    case 0x42:
      unmap(command, done);
      return true;
    default:
      return false;
  }
}

void ScsiDisk::transfer(const ScsiCommand& command, const Extent& extent, bool write, const Completion& done) {
  if (!inRange(extent)) return fail(done, kIllegalRequest, kOutOfRange);
  if (extent.count > kMaxTransferBlocks) return fail(done, kIllegalRequest, kInvalidField);
  if (write && disk_->readOnly()) return fail(done, kDataProtect, kWriteProtected);
  if (extent.count == 0) return done({});
  std::uint64_t bytes = extent.count * kBlock;
  std::span<const iovec> given = write ? command.fromInitiator : command.toInitiator;
  if (bytesIn(given) < bytes) {
    ScsiResult result;
    result.overrun = true;
    return done(result);
  }
  auto vectors = std::make_shared<std::vector<iovec>>();
  std::uint64_t left = bytes;
  for (const iovec& v : given) {
    if (left == 0) break;
    vectors->push_back({v.iov_base, static_cast<std::size_t>(std::min<std::uint64_t>(v.iov_len, left))});
    left -= vectors->back().iov_len;
  }
  auto ended = [done, vectors, bytes, write](int error) {
    if (error != 0) return fail(done, kMediumError, write ? kWriteError : kReadError);
    ScsiResult result;
    result.moved = bytes;
    done(result);
  };
  if (write)
    disk_->write(extent.first * kBlock, *vectors, ended);
  else
    disk_->read(extent.first * kBlock, *vectors, ended);
}

// WRITE SAME with a block of zeroes, given or not; other patterns are not offered. A count of 0 means up to the end.
void ScsiDisk::writeSame(const ScsiCommand& command, const Extent& given, const Completion& done) {
  Extent extent = given;
  bool noData = command.cdb[0] == 0x93 && (command.cdb[1] & 1) != 0, mayUnmap = (command.cdb[1] & 8) != 0;
  if (extent.count == 0 && extent.first <= blocks()) extent.count = blocks() - extent.first;
  if (!inRange(extent)) return fail(done, kIllegalRequest, kOutOfRange);
  if (disk_->readOnly()) return fail(done, kDataProtect, kWriteProtected);
  std::uint64_t taken = 0;
  if (!noData) {
    Bytes block = gather(command.fromInitiator, kBlock);
    bool zero = block.size() == kBlock && std::ranges::all_of(block, [](std::uint8_t b) { return b == 0; });
    if (!zero || extent.count > kMaxUnmapBlocks) return fail(done, kIllegalRequest, kInvalidField);
    taken = kBlock;
  }
  disk_->writeZeroes(extent.first * kBlock, extent.count * kBlock, mayUnmap, [done, taken](int error) {
    if (error != 0) return fail(done, kMediumError, kWriteError);
    ScsiResult result;
    result.moved = taken;
    done(result);
  });
}

// UNMAP (SBC-3, 5.28): a list of ranges, each 16 bytes, behind a header of 8.
void ScsiDisk::unmap(const ScsiCommand& command, const Completion& done) {
  constexpr std::size_t kHeader = 8, kRange = 16;
  Bytes list =
      gather(command.fromInitiator, std::min<std::size_t>(be(&command.cdb[7], 2), kHeader + kRange * kMaxUnmapRanges));
  if (list.empty()) return done({});
  if (list.size() < kHeader) return fail(done, kIllegalRequest, kParameterLength);
  std::size_t count = std::min<std::size_t>(be(&list[2], 2), list.size() - kHeader) / kRange;
  std::vector<Extent> extents;
  for (std::size_t n = 0; n < count; ++n) {
    const std::uint8_t* range = &list[kHeader + n * kRange];
    extents.push_back({be(range, 8), be(range + 8, 4)});
    if (!inRange(extents.back())) return fail(done, kIllegalRequest, kOutOfRange);
  }
  if (disk_->readOnly()) return fail(done, kDataProtect, kWriteProtected);
  if (extents.empty()) return done({});
  struct Progress {
    std::atomic<std::size_t> left;
    std::atomic<bool> failed{false};
  };
  auto progress = std::make_shared<Progress>();
  progress->left = extents.size();
  auto ended = [done, progress, moved = list.size()](int error) {
    if (error != 0) progress->failed = true;
    if (--progress->left != 0) return;
    if (progress->failed) return fail(done, kMediumError, kWriteError);
    ScsiResult result;
    result.moved = moved;
    done(result);
  };
  for (const Extent& e : extents) disk_->discard(e.first * kBlock, e.count * kBlock, ended);
}

void ScsiDisk::inquiry(const ScsiCommand& command, const Completion& done) const {
  const auto& c = command.cdb;
  Bytes data;
  if ((c[1] & 1) != 0) {
    data = {0, c[2], 0, 0};
    if (!productData(c[2], data)) return fail(done, kIllegalRequest, kInvalidField);
    data[2] = static_cast<std::uint8_t>((data.size() - 4) >> 8);
    data[3] = static_cast<std::uint8_t>(data.size() - 4);
  } else {
    if (c[2] != 0) return fail(done, kIllegalRequest, kInvalidField);
    // A disk, SPC-3, command queuing.
    data = {0, 0, 5, 2, 31, 0, 0, 2};
    putText(data, "LODGE", 8);
    putText(data, "DISK", 16);
    putText(data, "1.0", 4);
  }
  answer(command, std::move(data), be(&c[3], 2), done);
}

/// Vital product data (SPC-4, 7.8; SBC-3, 6.6), behind the page's header of four bytes.
bool ScsiDisk::productData(unsigned page, Bytes& data) const {
  switch (page) {
    case 0x00:
      for (std::uint8_t known : {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}) data.push_back(known);
      return true;
    case 0x80:
      putText(data, serial_, static_cast<unsigned>(serial_.size()));
      return true;
    case 0x83:  // by the vendor's name
      data.insert(data.end(), {2, 1, 0, static_cast<std::uint8_t>(8 + serial_.size())});
      putText(data, "LODGE", 8);
      putText(data, serial_, static_cast<unsigned>(serial_.size()));
      return true;
    case 0xb0:
      data.insert(data.end(), {1, 0, 0, 8});
      put(data, kMaxTransferBlocks, 4);
      put(data, 0, 8);
      put(data, kMaxUnmapBlocks, 4);
      put(data, kMaxUnmapRanges, 4);
      put(data, 8, 4);
      put(data, 0, 4);
      put(data, kMaxUnmapBlocks, 8);
      data.resize(64);
      return true;
    case 0xb1:
      put(data, 1, 2);  // nothing rotates
      data.resize(64);
      return true;
    case 0xb2:
      data.insert(data.end(), {0, 0xe4, 2, 0});  // unmap, write same; unmapped blocks read as zero; thin
      return true;
    default:
      return false;
  }
}

void ScsiDisk::modeSense(const ScsiCommand& command, bool wide, const Completion& done) const {
  const auto& c = command.cdb;
  unsigned page = c[2] & 0x3f, control = c[2] >> 6;
  if (control == 3) return fail(done, kIllegalRequest, 0x3900);
  if (page != 0x08 && page != 0x3f) return fail(done, kIllegalRequest, kInvalidField);
  Bytes pages(20);
  pages[0] = 0x08;
  pages[1] = 18;
  if (control != 1) pages[2] = 4;  // a write cache, which cannot be changed
  std::uint8_t device = disk_->readOnly() ? 0x80 : 0;
  Bytes data;
  if (wide) {
    put(data, pages.size() + 6, 2);
    data.insert(data.end(), {0, device, 0, 0, 0, 0});
  } else {
    data = {static_cast<std::uint8_t>(pages.size() + 3), 0, device, 0};
  }
  data.insert(data.end(), pages.begin(), pages.end());
  answer(command, std::move(data), wide ? be(&c[7], 2) : c[4], done);
}

void ScsiDisk::capacity16(const ScsiCommand& command, const Completion& done) const {
  Bytes data;
  put(data, blocks() - 1, 8);
  put(data, kBlock, 4);
  data.insert(data.end(), {0, 3, 0xc0, 0});  // eight blocks make a physical one; unmapped blocks read as zero
  data.resize(32);
  answer(command, std::move(data), be(&command.cdb[10], 4), done);
}

}  // namespace lodge
