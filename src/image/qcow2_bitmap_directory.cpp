// SPDX-License-Identifier: Apache-2.0
// Bitmaps as they lie in the file: QEMU's docs/interop/qcow2.txt, "Bitmaps extension".
#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"
#include "image/qcow2_header.h"

namespace lodge::image::qcow2 {

namespace {

constexpr std::size_t kEntryBytes = 24, kExtensionBytes = 24;
constexpr std::uint64_t kMaxDirectoryBytes = 64u << 20;

template <class T>
void storeBe(void* p, T value) {
  storeLe(p, loadBe<T>(&value));
}

Error corrupt(std::string what) {
  return {ErrorKind::corrupt, std::move(what)};
}

}  // namespace

std::uint64_t Bitmap::pages(std::uint64_t diskBytes, std::uint64_t cluster) const {
  std::uint64_t unit = std::uint64_t{1} << granularityBits;
  std::uint64_t bits = diskBytes / unit + (diskBytes % unit != 0 ? 1 : 0);
  return (bits + cluster * 8 - 1) / (cluster * 8);
}

std::string Bitmap::unsupported() const {
  if (type != bitmap::dirtyTracking) return fmt::format("its type {} is not known here", type);
  if ((flags & ~bitmap::known) != 0) return fmt::format("its flags 0x{:x} are not known here", flags);
  if (!extra.empty() && (flags & bitmap::extraDataCompatible) == 0) return "it has data that is not known here";
  return {};
}

Result<BitmapDirectory> readBitmapDirectory(BlockFile& file, const Header& header) {
  std::string data = header.extensionText(extension::bitmaps);
  BitmapDirectory directory;
  if (data.empty()) return directory;
  if (data.size() != kExtensionBytes) return corrupt("bitmaps extension");
  std::uint32_t count = loadBe<std::uint32_t>(data.data());
  directory.bytes = loadBe<std::uint64_t>(data.data() + 8);
  directory.offset = loadBe<std::uint64_t>(data.data() + 16);
  std::uint64_t at = directory.offset, bytes = directory.bytes;
  if (count == 0 || count > 65535 || bytes > kMaxDirectoryBytes || at % header.clusterBytes() != 0 || at == 0 ||
      at >= file.size() || bytes > file.size() - at)
    return corrupt("bitmap directory");
  std::vector<char> raw(bytes);
  if (int error = file.read(at, raw.data(), bytes); error != 0) return Error::fromErrno(error, "read the bitmaps");
  std::size_t position = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (bytes - position < kEntryBytes) return corrupt("bitmap directory");
    const char* p = raw.data() + position;
    std::uint32_t nameBytes = loadBe<std::uint16_t>(p + 18), extra = loadBe<std::uint32_t>(p + 20);
    std::uint64_t entryBytes = alignUp(std::uint64_t{kEntryBytes} + nameBytes + extra, 8);
    if (entryBytes > bytes - position) return corrupt("bitmap directory");
    directory.bitmaps.push_back({.name = std::string(p + kEntryBytes + extra, nameBytes),
                                 .tableOffset = loadBe<std::uint64_t>(p),
                                 .tableEntries = loadBe<std::uint32_t>(p + 8),
                                 .flags = loadBe<std::uint32_t>(p + 12),
                                 .granularityBits = static_cast<std::uint8_t>(p[17]),
                                 .type = static_cast<std::uint8_t>(p[16]),
                                 .extra = std::string(p + kEntryBytes, extra),
                                 .flagsOffset = at + position + 12});
    position += entryBytes;
  }
  return directory;
}

std::vector<std::byte> packBitmaps(const std::vector<Bitmap>& bitmaps) {
  std::vector<std::byte> out;
  for (const Bitmap& bitmap : bitmaps) {
    std::size_t at = out.size();
    out.resize(at + alignUp(kEntryBytes + bitmap.extra.size() + bitmap.name.size(), 8));
    std::byte* p = out.data() + at;
    storeBe(p, bitmap.tableOffset);
    storeBe(p + 8, bitmap.tableEntries);
    storeBe(p + 12, bitmap.flags);
    p[16] = std::byte{bitmap.type};
    p[17] = static_cast<std::byte>(bitmap.granularityBits);
    storeBe(p + 18, static_cast<std::uint16_t>(bitmap.name.size()));
    storeBe(p + 20, static_cast<std::uint32_t>(bitmap.extra.size()));
    std::memcpy(p + kEntryBytes, bitmap.extra.data(), bitmap.extra.size());
    std::memcpy(p + kEntryBytes + bitmap.extra.size(), bitmap.name.data(), bitmap.name.size());
  }
  return out;
}

std::string packBitmapsExtension(std::uint32_t count, std::uint64_t bytes, std::uint64_t offset) {
  std::string data(kExtensionBytes, '\0');
  storeBe(data.data(), count);
  storeBe(data.data() + 8, bytes);
  storeBe(data.data() + 16, offset);
  return data;
}

Result<std::vector<std::uint64_t>> readBitmapTable(BlockFile& file, const Header& header, const Bitmap& bitmap) {
  std::string what = "dirty bitmap " + inQuotes(bitmap.name);
  std::uint64_t cluster = header.clusterBytes(), bytes = std::uint64_t{bitmap.tableEntries} * 8;
  if (bytes > kMaxL1Bytes || bitmap.granularityBits < 9 || bitmap.granularityBits > 31 ||
      (bytes != 0 && (bitmap.tableOffset % cluster != 0 || bitmap.tableOffset == 0 ||
                      bitmap.tableOffset >= file.size() || bytes > file.size() - bitmap.tableOffset)))
    return corrupt(what + " has a table that cannot be");
  std::vector<std::uint64_t> table(bitmap.tableEntries);
  if (int error = file.read(bitmap.tableOffset, table.data(), bytes); error != 0)
    return Error::fromErrno(error, "read " + what);
  for (std::uint64_t& word : table) {
    word = __builtin_bswap64(word);
    std::uint64_t host = word & entry::offsetMask;
    if (host % cluster != 0 || host >= file.size() || (host == 0 && (word & ~bitmap::allOnes) != 0))
      return corrupt(what + " has an entry that leads nowhere");
  }
  return table;
}

}  // namespace lodge::image::qcow2
