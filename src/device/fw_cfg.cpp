// SPDX-License-Identifier: Apache-2.0
#include "device/fw_cfg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace lodge {

namespace {
constexpr std::uint64_t kSelector = 0, kData = 1, kDmaHigh = 4, kDmaLow = 8;
constexpr std::uint16_t kArchitectureLocal = 0x8000;
constexpr std::size_t kNameBytes = 56;
constexpr std::size_t kMaxFiles = 1024;
constexpr std::uint32_t kTraditionalInterface = 1, kDmaInterface = 2;
constexpr std::uint64_t kDmaSignature = 0x51454d5520434647;  // "QEMU CFG", as the DMA address register reads

// Bits of FWCfgDmaAccess.control; bits 16-31 are the key to select.
constexpr std::uint32_t kDmaError = 1 << 0, kDmaRead = 1 << 1, kDmaSkip = 1 << 2, kDmaSelect = 1 << 3,
                        kDmaWrite = 1 << 4;

void appendBe(std::vector<std::uint8_t>& bytes, std::uint64_t value, unsigned size) {
  for (unsigned i = size; i-- > 0;) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
}  // namespace

FwCfg::FwCfg(GuestMemory& memory) : memory_(memory) {
  items_[signature] = {'Q', 'E', 'M', 'U'};
  items_[interfaceId] = {kTraditionalInterface | kDmaInterface, 0, 0, 0};
  rebuildDirectory();
}

Status FwCfg::addItem(std::uint16_t key, std::vector<std::uint8_t> bytes) {
  if (key >= fileDirectory && (key & kArchitectureLocal) == 0)
    return Error(ErrorKind::invalidArgument, fmt::format("fw_cfg item 0x{:x}: not a plain item's key", key));
  items_[key] = std::move(bytes);
  return {};
}

Status FwCfg::addInteger(std::uint16_t key, std::uint64_t value, unsigned size) {
  std::vector<std::uint8_t> bytes(8);
  storeLe(bytes.data(), value);
  bytes.resize(std::min(size, 8u));
  return addItem(key, std::move(bytes));
}

Status FwCfg::addFile(std::string_view name, std::vector<std::uint8_t> bytes) {
  if (name.empty() || name.size() >= kNameBytes) {
    return Error(ErrorKind::invalidArgument,
                 fmt::format("fw_cfg file '{}': a name has 1 to {} bytes", name, kNameBytes - 1));
  }
  if (files_.count(name) != 0) return Error(ErrorKind::alreadyExists, fmt::format("fw_cfg file '{}' exists", name));
  if (files_.size() >= kMaxFiles)
    return Error(ErrorKind::outOfMemory, fmt::format("fw_cfg file '{}': too many files", name));
  auto key = static_cast<std::uint16_t>(firstFile + files_.size());
  files_.emplace(name, key);
  items_[key] = std::move(bytes);
  rebuildDirectory();
  return {};
}

// A big-endian count, then for each file its size, key, two zero bytes and its name; sorted by name.
void FwCfg::rebuildDirectory() {
  std::vector<std::uint8_t> directory;
  appendBe(directory, files_.size(), 4);
  for (const auto& [name, key] : files_) {
    appendBe(directory, items_[key].size(), 4);
    appendBe(directory, key, 2);
    appendBe(directory, 0, 2);
    std::size_t at = directory.size();
    directory.resize(at + kNameBytes);
    std::ranges::copy(name, directory.begin() + static_cast<std::ptrdiff_t>(at));
  }
  items_[fileDirectory] = std::move(directory);
}

void FwCfg::transfer(state::Archive& a) {
  std::lock_guard lock(mutex_);
  a(key_, position_, dmaHigh_);
}

void FwCfg::reset() {
  std::lock_guard lock(mutex_);
  select(signature);
  dmaHigh_ = 0;
}

void FwCfg::select(std::uint16_t key) {
  key_ = key;
  position_ = 0;
}

std::span<const std::uint8_t> FwCfg::selected() const {
  auto item = items_.find(key_);
  if (item == items_.end()) return {};
  return item->second;
}

std::uint8_t FwCfg::nextByte() {
  std::span<const std::uint8_t> item = selected();
  return position_ < item.size() ? item[position_++] : 0;
}

std::uint64_t FwCfg::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  if (offset == kData && size == 1) return nextByte();
  if (offset >= kDmaHigh && offset + size <= kPorts) {
    std::uint8_t text[8];
    storeLe(text, __builtin_bswap64(kDmaSignature));
    std::uint64_t value = 0;
    std::memcpy(&value, text + (offset - kDmaHigh), size);
    return value;
  }
  return 0;
}

void FwCfg::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(mutex_);
  if (offset == kSelector && size == 2) return select(static_cast<std::uint16_t>(value));
  if (size != 4) return;
  if (offset == kDmaHigh) dmaHigh_ = __builtin_bswap32(static_cast<std::uint32_t>(value));
  if (offset == kDmaLow) {
    startDma((std::uint64_t{dmaHigh_} << 32) | __builtin_bswap32(static_cast<std::uint32_t>(value)));
    dmaHigh_ = 0;
  }
}

// FWCfgDmaAccess: control, length (32 bits each), address (64 bits), all big-endian. The device clears control when it
// is done, or leaves the error bit alone there; a descriptor outside RAM cannot be answered.
void FwCfg::startDma(std::uint64_t descriptor) {
  std::uint8_t access[16];
  if (!memory_.readObject(Gpa{descriptor}, access)) return;
  auto control = loadBe<std::uint32_t>(access);
  auto length = loadBe<std::uint32_t>(access + 4);
  auto address = loadBe<std::uint64_t>(access + 8);
  if (control & kDmaSelect) select(static_cast<std::uint16_t>(control >> 16));
  bool ok = transfer(control, address, length);
  (void)memory_.writeObject(Gpa{descriptor}, __builtin_bswap32(ok ? 0 : kDmaError));
}

bool FwCfg::transfer(std::uint32_t control, std::uint64_t address, std::uint32_t length) {
  std::span<const std::uint8_t> item = selected();
  std::uint64_t left = item.size() - std::min<std::uint64_t>(position_, item.size());
  std::uint64_t content = std::min<std::uint64_t>(left, length);
  if (control & kDmaRead) {
    // What is past the item's end reads as zeros.
    if (length != 0 && !memory_.span(Gpa{address}, length)) return false;
    if (!memory_.write(Gpa{address}, std::as_bytes(item.subspan(item.size() - left, content)))) return false;
    if (!memory_.fill(Gpa{address} + content, std::byte{0}, length - content)) return false;
  } else if (control & kDmaWrite) {
    return length == 0;
  } else if (!(control & kDmaSkip)) {
    return true;
  }
  position_ += content;
  return true;
}

}  // namespace lodge
