// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_header.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"

namespace lodge::image::qcow2 {

namespace {

constexpr std::uint32_t kV2HeaderBytes = 72, kHeaderBytes = 112;

/// Header fields at their offsets.
class Fields {
 public:
  explicit Fields(std::vector<std::byte>& bytes) : bytes_(bytes) {}
  std::uint32_t u32(std::size_t at) const { return loadBe<std::uint32_t>(bytes_.data() + at); }
  std::uint64_t u64(std::size_t at) const { return loadBe<std::uint64_t>(bytes_.data() + at); }
  void put32(std::size_t at, std::uint32_t v) { storeLe(bytes_.data() + at, __builtin_bswap32(v)); }
  void put64(std::size_t at, std::uint64_t v) { storeLe(bytes_.data() + at, __builtin_bswap64(v)); }
  std::string text(std::size_t at, std::size_t n) const {
    return std::string(reinterpret_cast<const char*>(bytes_.data()) + at, n);
  }
  void putText(std::size_t at, const std::string& text) { std::memcpy(bytes_.data() + at, text.data(), text.size()); }

 private:
  std::vector<std::byte>& bytes_;
};

Error corrupt(std::string what) {
  return {ErrorKind::corrupt, "corrupt header: " + std::move(what)};
}

/// The names that the image itself gives to its feature bits.
std::string featureName(const std::string& table, unsigned type, unsigned bit) {
  constexpr std::size_t kRow = 48;
  for (std::size_t at = 0; at + kRow <= table.size(); at += kRow) {
    if (static_cast<unsigned char>(table[at]) != type || static_cast<unsigned char>(table[at + 1]) != bit) continue;
    std::string name = table.substr(at + 2, kRow - 2);
    return name.substr(0, name.find('\0'));
  }
  return {};
}

Status checkFeatures(const Header& h) {
  std::uint64_t unknown = h.incompatible & ~incompatible::known;
  if (unknown == 0) return {};
  std::vector<std::string> names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((unknown >> bit & 1) == 0) continue;
    std::string name = featureName(h.extensionText(extension::featureNames), 0, bit);
    names.push_back(name.empty() ? fmt::format("bit {}", bit) : inQuotes(name));
  }
  return Error(ErrorKind::unsupported, "needs features that are not known here: " + join(names, ", "));
}

Status readExtensions(Header& h, const Fields& f, std::size_t at, std::size_t end) {
  while (at + 8 <= end) {
    std::uint32_t type = f.u32(at), length = f.u32(at + 4);
    if (type == extension::end) return {};
    at += 8;
    if (length > end - at) return corrupt(fmt::format("extension 0x{:x} is longer than the header", type));
    h.extensions.push_back({type, f.text(at, length)});
    at += alignUp(length, 8);
    if (at > end) break;
  }
  return {};
}

Status checkGeometry(const Header& h, std::uint64_t fileBytes) {
  std::uint64_t cluster = h.clusterBytes();
  if (h.refcountOrder > 6) return corrupt(fmt::format("refcounts of 2^{} bits", h.refcountOrder));
  if (h.extendedL2() && h.clusterBits < 14) return corrupt("subclusters need clusters of 16 KiB or more");
  if (h.l1Entries > kMaxL1Bytes / 8)
    return Error(ErrorKind::unsupported,
                 fmt::format("L1 table of {} entries; {} at most", h.l1Entries, kMaxL1Bytes / 8));
  if (h.size > (std::uint64_t{1} << 62)) return corrupt("the disk's size is over 4 EiB");
  if (h.l1Entries < (h.size + h.bytesPerL2() - 1) / h.bytesPerL2())
    return corrupt("the L1 table is too small for the disk");
  if (h.l1Entries != 0 && (h.l1Offset == 0 || h.l1Offset % cluster != 0 || h.l1Offset >= fileBytes))
    return corrupt(fmt::format("L1 table at 0x{:x}", h.l1Offset));
  if (h.refTableClusters > kMaxRefTableBytes / cluster + (cluster > kMaxRefTableBytes ? 1 : 0))
    return Error(ErrorKind::unsupported, fmt::format("refcount table of {} clusters", h.refTableClusters));
  if (h.refTableClusters == 0 || h.refTableOffset == 0 || h.refTableOffset % cluster != 0 ||
      h.refTableOffset >= fileBytes)
    return corrupt(fmt::format("refcount table at 0x{:x}, {} clusters", h.refTableOffset, h.refTableClusters));
  if (h.snapshotCount > kMaxSnapshots) return corrupt(fmt::format("{} snapshots", h.snapshotCount));
  if (h.snapshotCount != 0 && (h.snapshotsOffset % cluster != 0 || h.snapshotsOffset >= fileBytes))
    return corrupt(fmt::format("snapshot table at 0x{:x}", h.snapshotsOffset));
  return {};
}

}  // namespace

std::string Header::extensionText(std::uint32_t type) const {
  for (const Extension& e : extensions) {
    if (e.type == type) return e.data;
  }
  return {};
}

void Header::setExtension(std::uint32_t type, std::string data) {
  std::erase_if(extensions, [&](const Extension& e) { return e.type == type && data.empty(); });
  for (Extension& e : extensions) {
    if (e.type == type) return void(e.data = std::move(data));
  }
  if (!data.empty()) extensions.push_back({type, std::move(data)});
}

Result<Header> readHeader(BlockFile& file) {
  std::vector<std::byte> bytes(kHeaderBytes);
  if (int error = file.read(0, bytes.data(), bytes.size()); error != 0)
    return Error::fromErrno(error, "read the header");
  Fields f(bytes);
  if (f.u32(0) != kMagic) return Error(ErrorKind::corrupt, "not a qcow2 image: the magic number is missing");
  Header h;
  h.version = f.u32(4);
  if (h.version != 2 && h.version != 3)
    return Error(ErrorKind::unsupported, fmt::format("qcow version {}", h.version))
        .withHint("versions 2 and 3 are known");
  h.clusterBits = f.u32(20);
  if (h.clusterBits < kMinClusterBits || h.clusterBits > kMaxClusterBits)
    return corrupt(fmt::format("clusters of 2^{} bytes", h.clusterBits));
  std::size_t cluster = h.clusterBytes();
  bytes.resize(std::max<std::size_t>(cluster, kHeaderBytes));
  if (int error = file.read(0, bytes.data(), cluster); error != 0) return Error::fromErrno(error, "read the header");
  h.size = f.u64(24);
  h.cryptMethod = f.u32(32);
  h.l1Entries = f.u32(36);
  h.l1Offset = f.u64(40);
  h.refTableOffset = f.u64(48);
  h.refTableClusters = f.u32(56);
  h.snapshotCount = f.u32(60);
  h.snapshotsOffset = f.u64(64);
  h.headerLength = kV2HeaderBytes;
  if (h.version == 3) {
    h.incompatible = f.u64(72);
    h.compatible = f.u64(80);
    h.autoclear = f.u64(88);
    h.refcountOrder = f.u32(96);
    h.headerLength = f.u32(100);
    if (h.headerLength < 104 || h.headerLength > cluster) return corrupt(fmt::format("{} bytes long", h.headerLength));
    if (h.headerLength >= 105) h.compression = static_cast<Compression>(bytes[104]);
    if (h.headerLength > kHeaderBytes) h.laterFields = f.text(kHeaderBytes, h.headerLength - kHeaderBytes);
  }
  std::uint64_t backing = f.u64(8);
  std::uint32_t backingBytes = f.u32(16);
  if (backing != 0 && backingBytes != 0) {
    if (backingBytes > 1023 || backing > cluster || backingBytes > cluster - backing)
      return corrupt("the backing image's name is not within the first cluster");
    h.backingName = f.text(backing, backingBytes);
  }
  if (Status read =
          readExtensions(h, f, h.headerLength, backing != 0 ? std::min<std::uint64_t>(backing, cluster) : cluster);
      !read)
    return std::move(read).error();
  if (Status good = checkFeatures(h); !good) return std::move(good).error();
  if (h.cryptMethod != 0)
    return Error(ErrorKind::unsupported,
                 h.cryptMethod == 2 ? "the image is encrypted (LUKS)" : "the image is encrypted (AES)")
        .withHint("decrypt it first: qemu-img convert with --object secret and --image-opts");
  bool typed = (h.incompatible & incompatible::compressionType) != 0;
  if (h.compression != Compression::deflate && (!typed || h.compression != Compression::zstd))
    return Error(ErrorKind::unsupported, fmt::format("compression type {}", static_cast<int>(h.compression)));
  if (Status good = checkGeometry(h, file.size()); !good) return std::move(good).error();
  return h;
}

Status writeHeader(BlockFile& file, const Header& h) {
  std::size_t cluster = h.clusterBytes();
  std::uint32_t length =
      h.version == 2 ? kV2HeaderBytes : kHeaderBytes + static_cast<std::uint32_t>(h.laterFields.size());
  std::size_t needed = length + 8 + h.backingName.size();
  for (const Extension& e : h.extensions) needed += 8 + alignUp(e.data.size(), 8);
  if (needed > cluster)
    return Error(ErrorKind::invalidArgument, "the header does not fit into a cluster")
        .withHint("use larger clusters or a shorter backing name");
  std::vector<std::byte> bytes(cluster);
  Fields f(bytes);
  f.put32(0, kMagic);
  f.put32(4, h.version);
  f.put32(20, h.clusterBits);
  f.put64(24, h.size);
  f.put32(32, h.cryptMethod);
  f.put32(36, h.l1Entries);
  f.put64(40, h.l1Offset);
  f.put64(48, h.refTableOffset);
  f.put32(56, h.refTableClusters);
  f.put32(60, h.snapshotCount);
  f.put64(64, h.snapshotsOffset);
  if (h.version == 3) {
    f.put64(72, h.incompatible);
    f.put64(80, h.compatible);
    f.put64(88, h.autoclear);
    f.put32(96, h.refcountOrder);
    f.put32(100, length);
    bytes[104] = static_cast<std::byte>(h.compression);
    f.putText(kHeaderBytes, h.laterFields);
  }
  std::size_t at = length;
  for (const Extension& e : h.extensions) {
    f.put32(at, e.type);
    f.put32(at + 4, static_cast<std::uint32_t>(e.data.size()));
    f.putText(at + 8, e.data);
    at += 8 + alignUp(e.data.size(), 8);
  }
  at += 8;  // the end extension is zero
  if (!h.backingName.empty()) {
    f.put64(8, at);
    f.put32(16, static_cast<std::uint32_t>(h.backingName.size()));
    f.putText(at, h.backingName);
    at += h.backingName.size();
  }
  // Not more than is used: one sector is written in one piece by any disk.
  std::size_t used = std::min(cluster, alignUp(std::max(at, std::size_t{1}), 512));
  if (int error = file.write(0, bytes.data(), used); error != 0) return Error::fromErrno(error, "write the header");
  return {};
}

}  // namespace lodge::image::qcow2
