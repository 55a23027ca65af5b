// SPDX-License-Identifier: Apache-2.0
#include "image/vhdx_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "image/io_vector.h"

namespace lodge::image::vhdx {

namespace {

constexpr std::uint64_t kMaxLog = 64_MiB;  ///< it is read whole
constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 50;

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, "the log: " + what);
}

struct Entry {
  std::uint64_t at = 0;
  LogHeader header{};
};

class Reader {
 public:
  Reader(std::vector<std::byte> log, const Uuid& id) : log_(std::move(log)), id_(id), budget_(log_.size() * 8) {}

  Result<Replay> run() {
    std::vector<Entry> best;
    for (std::uint64_t at = 0; at < log_.size() && budget_ != 0; at += kLogSector) {
      std::vector<Entry> sequence = sequenceAt(at);
      if (sequence.empty()) continue;
      if (best.empty() || sequence.back().header.sequence > best.back().header.sequence) best = std::move(sequence);
    }
    Replay replay;
    if (budget_ == 0) return bad("too many overlapping entries");
    if (best.empty()) return replay;
    auto tail = std::find_if(best.begin(), best.end(), [&](const Entry& e) { return e.at == best.back().header.tail; });
    for (auto entry = tail; entry != best.end(); ++entry) {
      if (Status added = add(*entry, replay); !added) return std::move(added).error();
    }
    replay.fileBytes = best.back().header.lastFileBytes;
    if (replay.fileBytes > kMaxFile) return bad("a file length that cannot be");
    flushed_ = best.back().header.flushedFileBytes;
    return replay;
  }
  std::uint64_t flushedFileBytes() const { return flushed_; }

 private:
  /// `bytes` from `at` on; the log is a ring.
  void copy(std::uint64_t at, void* to, std::size_t bytes) const {
    at %= log_.size();
    std::size_t first = std::min<std::size_t>(bytes, log_.size() - at);
    std::memcpy(to, log_.data() + at, first);
    std::memcpy(static_cast<char*>(to) + first, log_.data(), bytes - first);
  }

  bool entryAt(std::uint64_t at, Entry& entry) {
    entry.at = at % log_.size();
    copy(at, &entry.header, sizeof entry.header);
    const LogHeader& h = entry.header;
    std::uint64_t bytes = h.bytes;
    if (!hasSignature(h, "loge") || h.log != id_ || h.sequence == 0) return false;
    if (bytes % kLogSector != 0 || bytes == 0 || bytes > log_.size() || h.tail % kLogSector != 0) return false;
    if (sizeof(LogHeader) + h.descriptors * sizeof(LogDescriptor) > bytes) return false;
    if (bytes > budget_) {
      budget_ = 0;
      return false;
    }
    budget_ -= bytes;
    std::vector<std::byte> whole(bytes);
    copy(at, whole.data(), whole.size());
    return checksumOf(whole) == h.checksum;
  }

  /// The longest run of entries from `at` on whose newest one's tail is among them (2.3.3).
  std::vector<Entry> sequenceAt(std::uint64_t at) {
    std::vector<Entry> entries;
    std::uint64_t total = 0;
    Entry entry;
    while (total < log_.size() && entryAt(at + total, entry)) {
      if (!entries.empty() && entry.header.sequence != entries.back().header.sequence + 1) break;
      entries.push_back(entry);
      total += entry.header.bytes;
    }
    while (!entries.empty()) {
      std::uint64_t tail = entries.back().header.tail;
      if (std::any_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.at == tail; })) break;
      entries.pop_back();
    }
    return entries;
  }

  Status add(const Entry& entry, Replay& replay) {
    std::uint64_t descriptors = entry.header.descriptors, sequence = entry.header.sequence;
    std::uint64_t data = alignUp(sizeof(LogHeader) + descriptors * sizeof(LogDescriptor), kLogSector);
    for (std::uint64_t i = 0; i < descriptors; ++i) {
      LogDescriptor d{};
      copy(entry.at + sizeof(LogHeader) + i * sizeof d, &d, sizeof d);
      bool zero = hasSignature(d, "zero");
      if ((!zero && !hasSignature(d, "desc")) || d.sequence != sequence) return bad("a descriptor is damaged");
      std::uint64_t length = zero ? std::uint64_t{d.leading} : kLogSector;
      if (d.offset % kLogSector != 0 || d.offset > kMaxFile || length > kMaxFile || length % kLogSector != 0) {
        return bad("a descriptor leads outside the file");
      }
      Replay::Change change{d.offset, length};
      if (!zero) {
        if (data + kLogSector > entry.header.bytes) return bad("an entry lacks data");
        LogData sector{};
        copy(entry.at + data, &sector, sizeof sector);
        data += kLogSector;
        std::uint64_t own = std::uint64_t{sector.sequenceHigh} << 32 | sector.sequenceLow;
        if (!hasSignature(sector, "data") || own != sequence) return bad("a data sector is damaged");
        change.bytes.resize(kLogSector);
        std::memcpy(change.bytes.data(), &d.leading, 8);
        std::memcpy(change.bytes.data() + 8, sector.bytes.data(), sector.bytes.size());
        std::memcpy(change.bytes.data() + kLogSector - 4, &d.trailing, 4);
      }
      replay.changes.push_back(std::move(change));
    }
    return {};
  }

  std::vector<std::byte> log_;
  Uuid id_;
  std::uint64_t budget_, flushed_ = 0;
};

class ReplayedFile : public BlockFile {
 public:
  ReplayedFile(std::shared_ptr<BlockFile> file, Replay replay)
      : file_(std::move(file)), size_(std::max(file_->size(), replay.fileBytes)) {
    for (Replay::Change& change : replay.changes) {
      cut(change.offset, change.offset + change.length);
      if (change.length != 0) changes_[change.offset] = std::move(change);
    }
  }

  const std::string& name() const override { return file_->name(); }
  bool readOnly() const override { return true; }
  std::uint64_t size() const override { return size_; }
  std::uint64_t allocatedBytes() const override { return file_->allocatedBytes(); }
  int writev(std::uint64_t, std::span<const iovec>) override { return EROFS; }
  int flush() override { return 0; }
  int truncate(std::uint64_t) override { return EROFS; }
  int discard(std::uint64_t, std::uint64_t) override { return EROFS; }
  int writeZeroes(std::uint64_t, std::uint64_t, bool) override { return EROFS; }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    IoCursor cursor(to);
    for (std::uint64_t left = bytesIn(to); left != 0;) {
      auto next = changes_.upper_bound(offset);
      const Replay::Change* change = next == changes_.begin() ? nullptr : &std::prev(next)->second;
      if (change && offset - change->offset >= change->length) change = nullptr;
      std::uint64_t end = change                   ? change->offset + change->length
                          : next == changes_.end() ? offset + left
                                                   : next->first;
      std::uint64_t part = std::min(left, end - offset);
      std::span<const iovec> piece = cursor.take(part);
      if (!change) {
        if (int error = file_->readv(offset, piece); error != 0) return error;
      } else if (change->bytes.empty()) {
        fillZero(piece);
      } else {
        scatter(change->bytes.data() + (offset - change->offset), piece);
      }
      offset += part;
      left -= part;
    }
    return 0;
  }

 private:
  /// Takes the range out of earlier changes. Data changes are single pages, which never overlap in part.
  void cut(std::uint64_t from, std::uint64_t to) {
    auto it = changes_.upper_bound(from);
    if (it != changes_.begin()) --it;
    std::vector<Replay::Change> rests;
    while (it != changes_.end() && it->first < to) {
      std::uint64_t start = it->first, end = start + it->second.length;
      if (end <= from) {
        ++it;
        continue;
      }
      if (start < from) rests.push_back({start, from - start});
      if (end > to) rests.push_back({to, end - to});
      it = changes_.erase(it);
    }
    for (Replay::Change& rest : rests) changes_[rest.offset] = std::move(rest);
  }

  std::shared_ptr<BlockFile> file_;
  std::uint64_t size_;
  std::map<std::uint64_t, Replay::Change> changes_;
};

}  // namespace

Result<Replay> readLog(BlockFile& file, const Header& header) {
  if (isNull(header.log)) return Replay{};
  std::uint64_t bytes = header.logBytes, offset = header.logOffset;
  if (header.logVersion != 0) {
    return Error(ErrorKind::unsupported, fmt::format("log version {}", std::uint16_t{header.logVersion}));
  }
  if (bytes % 1_MiB != 0 || bytes == 0 || offset % 1_MiB != 0 || offset < 1_MiB || offset > file.size() ||
      bytes > file.size() - offset) {
    return bad(fmt::format("{} bytes at offset {:#x} of the file", bytes, offset));
  }
  if (bytes > kMaxLog) return Error(ErrorKind::unsupported, fmt::format("a log of {} bytes", bytes));
  std::vector<std::byte> log(bytes);
  if (int error = file.read(offset, log.data(), log.size()); error != 0) return Error::fromErrno(error, "read the log");
  Reader reader(std::move(log), header.log);
  auto replay = reader.run();
  if (replay && reader.flushedFileBytes() > file.size()) return bad("the file is shorter than the log says");
  return replay;
}

int applyReplay(BlockFile& file, const Replay& replay) {
  if (replay.changes.empty()) return 0;
  if (file.size() < replay.fileBytes) {
    if (int error = file.truncate(replay.fileBytes); error != 0) return error;
  }
  for (const Replay::Change& change : replay.changes) {
    int error = change.bytes.empty() ? file.writeZeroes(change.offset, change.length, true)
                                     : file.write(change.offset, change.bytes.data(), change.bytes.size());
    if (error != 0) return error;
  }
  return file.flush();
}

std::shared_ptr<BlockFile> withReplay(std::shared_ptr<BlockFile> file, Replay replay) {
  return std::make_shared<ReplayedFile>(std::move(file), std::move(replay));
}

int LogWriter::write(BlockFile& file, std::span<const TableCache::Copy> pages) {
  // An entry of n pages takes n sectors and one for each 126 descriptors or so; leave half of the log alone, so that
  // the entry before stays whole while the next one is written.
  std::size_t most = std::max<std::size_t>(1, header_.logBytes / kLogSector / 2 - 4);
  while (!pages.empty()) {
    std::size_t n = std::min(most, pages.size());
    if (int error = writeEntry(file, pages.first(n)); error != 0) return error;
    pages = pages.subspan(n);
  }
  return 0;
}

int LogWriter::writeEntry(BlockFile& file, std::span<const TableCache::Copy> pages) {
  std::uint64_t descriptors = alignUp(sizeof(LogHeader) + pages.size() * sizeof(LogDescriptor), kLogSector);
  std::vector<std::byte> entry(descriptors + pages.size() * kLogSector);
  if (position_ + entry.size() > header_.logBytes) position_ = 0;
  LogHeader h{};
  std::memcpy(h.signature.data(), "loge", 4);
  h.bytes = static_cast<std::uint32_t>(entry.size());
  h.tail = static_cast<std::uint32_t>(position_);  // what was before is in the file for good
  h.sequence = sequence_;
  h.descriptors = static_cast<std::uint32_t>(pages.size());
  h.log = header_.log;
  h.flushedFileBytes = file.size();
  h.lastFileBytes = alignUp(file.size(), 1_MiB);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const std::byte* page = pages[i].bytes.data();
    LogDescriptor d{};
    std::memcpy(d.signature.data(), "desc", 4);
    std::memcpy(&d.leading, page, 8);
    std::memcpy(&d.trailing, page + kLogSector - 4, 4);
    d.offset = pages[i].offset;
    d.sequence = sequence_;
    std::memcpy(entry.data() + sizeof h + i * sizeof d, &d, sizeof d);
    LogData data{};
    std::memcpy(data.signature.data(), "data", 4);
    data.sequenceHigh = static_cast<std::uint32_t>(sequence_ >> 32);
    data.sequenceLow = static_cast<std::uint32_t>(sequence_);
    std::memcpy(data.bytes.data(), page + 8, data.bytes.size());
    std::memcpy(entry.data() + descriptors + i * kLogSector, &data, sizeof data);
  }
  std::memcpy(entry.data(), &h, sizeof h);
  storeLe<std::uint32_t>(entry.data() + 4, checksumOf(entry));
  int error = file.write(header_.logOffset + position_, entry.data(), entry.size());
  if (error == 0) error = file.flush();
  for (std::size_t i = 0; i < pages.size() && error == 0; ++i) {
    error = file.write(pages[i].offset, pages[i].bytes.data(), pages[i].bytes.size());
  }
  if (error == 0) error = file.flush();
  position_ += entry.size();
  ++sequence_;
  return error;
}

}  // namespace lodge::image::vhdx
