// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/text.h"
#include "image/nbd_connection.h"
#include "image/patience.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

using namespace nbd;

class NbdFile : public BlockFile {
 public:
  NbdFile(std::string name, Export e, bool readOnly)
      : name_(std::move(name)), connection_(std::make_shared<Connection>(std::move(e))), readOnly_(readOnly) {}
  ~NbdFile() override { connection_->close(); }

  const std::string& name() const override { return name_; }
  bool readOnly() const override { return readOnly_; }
  std::uint64_t size() const override { return connection_->bytes(); }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    VectorCursor cursor(to);
    std::uint64_t left = totalBytes(to), end = connection_->bytes();
    while (left != 0 && offset < end) {
      auto part = static_cast<std::uint32_t>(std::min<std::uint64_t>({left, kMaxPart, end - offset}));
      std::span<const iovec> taken = cursor.take(part);
      Call call{.offset = offset, .length = part, .to = taken};
      if (int error = run(call, Command::read, 0, {}); error != 0) return error;
      offset += part;
      left -= part;
    }
    cursor.zero(left);
    return 0;
  }
  int writev(std::uint64_t offset, std::span<const iovec> from) override {
    if (readOnly_) return EROFS;
    if (offset + totalBytes(from) > connection_->bytes()) return ENOSPC;
    VectorCursor cursor(from);
    for (std::uint64_t left = totalBytes(from); left != 0;) {
      auto part = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, kMaxPart));
      Call call{.offset = offset, .length = part};
      if (int error = run(call, Command::write, 0, cursor.take(part)); error != 0) return error;
      offset += part;
      left -= part;
    }
    return 0;
  }
  int flush() override {
    Call call;
    return readOnly_ || !has(transmission::sendFlush) ? 0 : run(call, Command::flush, 0, {});
  }
  int truncate(std::uint64_t bytes) override { return bytes <= connection_->bytes() ? 0 : ENOSPC; }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    return has(transmission::sendTrim) ? ranges(Command::trim, 0, offset, length) : 0;
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    if (offset + length > connection_->bytes()) return ENOSPC;
    if (has(transmission::sendWriteZeroes))
      return ranges(Command::writeZeroes, mayUnmap ? 0 : command_flag::noHole, offset, length);
    static const std::array<std::byte, 65536> zeroes{};
    for (; length != 0;) {
      std::size_t part = std::min<std::uint64_t>(length, zeroes.size());
      if (int error = write(offset, zeroes.data(), part); error != 0) return error;
      offset += part;
      length -= part;
    }
    return 0;
  }
  Extent extent(std::uint64_t offset, std::uint64_t length) override {
    length = std::min<std::uint64_t>(length, 1u << 30);
    if (!connection_->tellsAllocation()) return {length, false};
    Call call{.offset = offset, .length = static_cast<std::uint32_t>(length)};
    if (run(call, Command::blockStatus, 0, {}) != 0 || call.extents.empty() || call.extents[0].first == 0)
      return {length, false};
    bool hole = (call.extents[0].second & state::zero) != 0;
    std::uint64_t known = 0;
    for (auto [bytes, flags] : call.extents) {
      if (((flags & state::zero) != 0) != hole) break;
      known += bytes;
    }
    return {std::min(known, length), hole};
  }

  Connection& connection() { return *connection_; }

 private:
  static constexpr std::uint32_t kMaxPart = 1u << 20;

  bool has(std::uint16_t flag) const { return connection_->has(flag); }
  int run(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload) {
    return connection_->run(call, command, flags, payload);
  }
  int ranges(Command command, std::uint16_t flags, std::uint64_t offset, std::uint64_t length) {
    if (readOnly_) return EROFS;
    while (length != 0) {
      auto part = static_cast<std::uint32_t>(std::min<std::uint64_t>(length, 1u << 30));
      Call call{.offset = offset, .length = part};
      if (int error = run(call, command, flags, {}); error != 0) return error;
      offset += part;
      length -= part;
    }
    return 0;
  }

  std::string name_;
  std::shared_ptr<Connection> connection_;
  bool readOnly_;
};

std::mutex openedMutex;
std::unordered_map<std::string, std::weak_ptr<NbdFile>> opened;  ///< by address; under openedMutex

std::vector<std::shared_ptr<NbdFile>> allOpened() {
  std::vector<std::shared_ptr<NbdFile>> all;
  std::lock_guard lock(openedMutex);
  for (auto& [address, file] : opened) {
    if (auto held = file.lock()) all.push_back(std::move(held));
  }
  return all;
}

Result<std::shared_ptr<NbdFile>> openOver(UniqueFd socket, const std::string& exportName, const std::string& name,
                                          bool readOnly) {
  Export e;
  e.socket = std::move(socket);
  if (Status done = nbd::negotiate(e, exportName); !done)
    return std::move(done).error().context("open " + inQuotes(name));
  if (!readOnly && (e.flags & transmission::readOnly) != 0)
    return Error(ErrorKind::permissionDenied, "open " + inQuotes(name) + ": the server exports it read-only");
  return std::make_shared<NbdFile>(name, std::move(e), readOnly);
}

}  // namespace

std::shared_ptr<BlockFile> openedNbd(const std::string& address) {
  std::lock_guard lock(openedMutex);
  auto found = opened.find(address);
  return found == opened.end() ? nullptr : found->second.lock();
}

Status busyNbdServersAnswer() {
  Impatience limited;
  std::array<std::byte, 512> sign;
  for (const std::shared_ptr<NbdFile>& file : allOpened()) {
    if (file->connection().isBusy() && file->read(0, sign.data(), sign.size()) == ETIMEDOUT)
      return unanswered("read the disk " + inQuotes(file->name()));
  }
  return {};
}

std::string busyNbd() {
  for (const std::shared_ptr<NbdFile>& file : allOpened()) {
    if (file->connection().isBusy()) return file->name();
  }
  return {};
}

Result<std::shared_ptr<BlockFile>> openNbd(const std::string& text, bool readOnly) {
  auto address = parseAddress(text);
  if (!address) return std::move(address).error();
  auto socket = connectTo(*address);
  if (!socket) return std::move(socket).error();
  auto file = openOver(std::move(*socket), address->exportName, text, readOnly);
  if (!file) return std::move(file).error();
  std::lock_guard lock(openedMutex);
  opened[text] = *file;
  return std::shared_ptr<BlockFile>(std::move(*file));
}

Result<std::shared_ptr<BlockFile>> openNbd(UniqueFd socket, const std::string& exportName, const std::string& name,
                                           bool readOnly) {
  auto file = openOver(std::move(socket), exportName, name, readOnly);
  if (!file) return std::move(file).error();
  return std::shared_ptr<BlockFile>(std::move(*file));
}

}  // namespace lodge::image
