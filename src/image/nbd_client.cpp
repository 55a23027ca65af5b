// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_client.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/text.h"
#include "image/nbd_protocol.h"
#include "image/vectors.h"

namespace lodge::image {

namespace {

using namespace nbd;

/// What an export is like, as the handshake told.
struct Export {
  UniqueFd socket;
  std::uint64_t bytes = 0;
  std::uint16_t flags = 0;
  bool structured = false, allocation = false;
};

/// One request on its way. Lives on its caller's stack.
struct Call {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::span<const iovec> to{};                                     // of a read
  std::vector<std::pair<std::uint32_t, std::uint32_t>> extents{};  // of a status: bytes, flags
  int error = 0;
  bool done = false;
  std::uint32_t received = 0;
};

class NbdFile : public BlockFile {
 public:
  NbdFile(std::string name, Export e, bool readOnly)
      : name_(std::move(name)), export_(std::move(e)), readOnly_(readOnly), receiver_([this] { receive(); }) {}
  ~NbdFile() override {
    {
      std::lock_guard lock(sendMutex_);
      Message bye;
      bye.u32(kRequestMagic).u16(0).u16(static_cast<std::uint16_t>(Command::disconnect)).u64(0).u64(0).u32(0);
      sendAll(export_.socket.get(), bye.bytes().data(), bye.bytes().size());
      ::shutdown(export_.socket.get(), SHUT_RDWR);
    }
    receiver_.join();
  }

  const std::string& name() const override { return name_; }
  bool readOnly() const override { return readOnly_; }
  std::uint64_t size() const override { return export_.bytes; }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    VectorCursor cursor(to);
    std::uint64_t left = totalBytes(to), end = export_.bytes;
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
    if (offset + totalBytes(from) > export_.bytes) return ENOSPC;
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
  int truncate(std::uint64_t bytes) override { return bytes <= export_.bytes ? 0 : ENOSPC; }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    return has(transmission::sendTrim) ? ranges(Command::trim, 0, offset, length) : 0;
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    if (offset + length > export_.bytes) return ENOSPC;
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
    if (!export_.allocation) return {length, false};
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

 private:
  static constexpr std::uint32_t kMaxPart = 1u << 20;

  bool has(std::uint16_t flag) const { return (export_.flags & flag) != 0; }

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

  int run(Call& call, Command command, std::uint16_t flags, std::span<const iovec> payload) {
    std::uint64_t cookie = 0;
    {
      std::lock_guard lock(mutex_);
      if (broken_ != 0) return broken_;
      cookie = ++lastCookie_;
      calls_[cookie] = &call;
    }
    Message m;
    m.u32(kRequestMagic)
        .u16(flags)
        .u16(static_cast<std::uint16_t>(command))
        .u64(cookie)
        .u64(call.offset)
        .u32(call.length);
    int error = 0;
    {
      std::lock_guard lock(sendMutex_);
      error = sendAll(export_.socket.get(), m.bytes().data(), m.bytes().size(), !payload.empty());
      for (std::size_t i = 0; i < payload.size() && error == 0; ++i)
        error = sendAll(export_.socket.get(), payload[i].iov_base, payload[i].iov_len, i + 1 < payload.size());
    }
    if (error != 0) ::shutdown(export_.socket.get(), SHUT_RDWR);  // the receiver ends all that wait
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return call.done; });
    return call.error;
  }

  Call* find(std::uint64_t cookie) {
    std::lock_guard lock(mutex_);
    auto it = calls_.find(cookie);
    return it == calls_.end() ? nullptr : it->second;
  }
  void finish(std::uint64_t cookie, int error) {
    std::lock_guard lock(mutex_);
    auto it = calls_.find(cookie);
    if (it == calls_.end()) return;
    if (error != 0 && it->second->error == 0) it->second->error = error;
    it->second->done = true;
    calls_.erase(it);
    finished_.notify_all();
  }

  /// Into the part of the caller's buffers that begins `at` bytes in.
  int scatter(Call& call, std::uint64_t at, std::uint64_t length, bool hole) {
    if (call.to.empty() || at > call.length || length > call.length - at) return EPROTO;
    for (const iovec& v : call.to) {
      if (at >= v.iov_len) {
        at -= v.iov_len;
        continue;
      }
      std::size_t part = std::min<std::uint64_t>(length, v.iov_len - at);
      char* to = static_cast<char*>(v.iov_base) + at;
      if (hole)
        std::memset(to, 0, part);
      else if (int error = receiveAll(export_.socket.get(), to, part); error != 0)
        return error;
      call.received += static_cast<std::uint32_t>(part);
      length -= part;
      at = 0;
      if (length == 0) break;
    }
    return 0;
  }

  int receiveOne() {
    int fd = export_.socket.get();
    std::vector<char> head(4);
    if (int error = receiveAll(fd, head.data(), 4); error != 0) return error;
    std::uint32_t magic = loadBe<std::uint32_t>(head.data());
    if (magic == kSimpleReplyMagic) {
      head.resize(12);
      if (int error = receiveAll(fd, head.data(), 12); error != 0) return error;
      Fields f(head);
      int error = fromWire(f.u32());
      std::uint64_t cookie = f.u64();
      Call* call = find(cookie);
      if (!call) return EPROTO;
      if (error == 0 && !call->to.empty()) {
        if (int failed = scatter(*call, 0, call->length, false); failed != 0) return failed;
      }
      finish(cookie, error);
      return 0;
    }
    if (magic != kStructuredReplyMagic || !export_.structured) return EPROTO;
    head.resize(16);
    if (int error = receiveAll(fd, head.data(), 16); error != 0) return error;
    Fields f(head);
    std::uint16_t flags = f.u16(), type = f.u16();
    std::uint64_t cookie = f.u64();
    std::uint32_t length = f.u32();
    Call* call = find(cookie);
    if (!call || length > kMaxPayload + 8) return EPROTO;
    if (int error = receiveChunk(*call, type, length); error != 0) return error;
    if ((flags & chunk::done) != 0) {
      bool partial = call->error == 0 && !call->to.empty() && call->received != call->length;
      finish(cookie, partial ? EIO : 0);
    }
    return 0;
  }

  int receiveChunk(Call& call, std::uint16_t type, std::uint32_t length) {
    std::vector<char> body(type == chunk::data ? 8 : length);
    if (type == chunk::data && length < 8) return EPROTO;
    if (int error = receiveAll(export_.socket.get(), body.data(), body.size()); error != 0) return error;
    Fields f(body);
    switch (type) {
      case chunk::none:
        return 0;
      case chunk::data:
        return scatter(call, f.u64() - call.offset, length - 8, false);
      case chunk::hole: {
        std::uint64_t at = f.u64();
        return scatter(call, at - call.offset, f.u32(), true);
      }
      case chunk::blockStatus:
        f.u32();
        while (f.left() >= 8 && call.extents.size() < 4096) {
          std::uint32_t bytes = f.u32();
          call.extents.emplace_back(bytes, f.u32());
        }
        return 0;
      default:
        if ((type & 0x8000) == 0) return EPROTO;
        call.error = fromWire(f.u32());
        if (call.error == 0) call.error = EIO;
        return 0;
    }
  }

  void receive() {
    int error = 0;
    while (error == 0) error = receiveOne();
    std::lock_guard lock(mutex_);
    broken_ = error;
    for (auto& [cookie, call] : calls_) {
      call->error = error;
      call->done = true;
    }
    calls_.clear();
    finished_.notify_all();
  }

  std::string name_;
  Export export_;
  bool readOnly_;
  std::mutex sendMutex_, mutex_;
  std::condition_variable finished_;
  std::unordered_map<std::uint64_t, Call*> calls_;
  std::uint64_t lastCookie_ = 0;
  int broken_ = 0;
  std::thread receiver_;
};

/// The client's side of the negotiation.
class Handshake {
 public:
  Handshake(Export& e, std::string name) : export_(e), fd_(e.socket.get()), name_(std::move(name)) {}

  Status run() {
    std::vector<char> hello(18);
    if (int error = receiveAll(fd_, hello.data(), hello.size()); error != 0) return broken(error);
    Fields f(hello);
    if (f.u64() != kMagic || f.u64() != kOptionMagic)
      return Error(ErrorKind::io, "this is no NBD server of the newer kind");
    std::uint16_t flags = f.u16();
    if ((flags & handshake::fixedNewstyle) == 0) return Error(ErrorKind::unsupported, "the NBD server is too old");
    Message answer;
    answer.u32(flags & (handshake::fixedNewstyle | handshake::noZeroes));
    if (int error = sendAll(fd_, answer.bytes().data(), answer.bytes().size()); error != 0) return broken(error);
    if (Status s = option(Option::structuredReply, {}); !s) return s;
    export_.structured = last_ == option_reply::ack;
    if (export_.structured) {
      Message meta;
      meta.u32(static_cast<std::uint32_t>(name_.size())).text(name_).u32(1).u32(15).text(kAllocation);
      if (Status s = option(Option::setMeta, meta.bytes()); !s) return s;
    }
    Message go;
    go.u32(static_cast<std::uint32_t>(name_.size())).text(name_).u16(0);
    if (Status s = option(Option::go, go.bytes()); !s) return s;
    if (last_ != option_reply::ack || !sized_) {
      return Error(last_ == option_reply::unknown ? ErrorKind::notFound : ErrorKind::unsupported,
                   fmt::format("the NBD server refuses the export {}", inQuotes(name_)));
    }
    return {};
  }

 private:
  Error broken(int error) { return Error::fromErrno(error, "talk to the NBD server"); }

  Status option(Option which, const std::vector<char>& data) {
    Message m;
    m.u64(kOptionMagic).u32(static_cast<std::uint32_t>(which)).u32(static_cast<std::uint32_t>(data.size()));
    int error = sendAll(fd_, m.bytes().data(), m.bytes().size(), !data.empty());
    if (error == 0) error = sendAll(fd_, data.data(), data.size());
    if (error != 0) return broken(error);
    for (;;) {
      std::vector<char> head(20);
      if (error = receiveAll(fd_, head.data(), head.size()); error != 0) return broken(error);
      Fields f(head);
      std::uint64_t magic = f.u64();
      f.u32();
      last_ = f.u32();
      std::uint32_t length = f.u32();
      if (magic != kOptionReplyMagic || length > kMaxOption) return broken(EPROTO);
      std::vector<char> body(length);
      if (error = receiveAll(fd_, body.data(), length); error != 0) return broken(error);
      Fields b(body);
      if (last_ == option_reply::info && b.u16() == info_kind::exported) {
        export_.bytes = b.u64();
        export_.flags = b.u16();
        sized_ = !b.bad() && export_.bytes < (std::uint64_t{1} << 62);
      } else if (last_ == option_reply::metaContext) {
        export_.allocation = true;
      }
      if (last_ == option_reply::ack || (last_ & 0x80000000) != 0) return {};
    }
  }

  Export& export_;
  int fd_;
  std::string name_;
  std::uint32_t last_ = 0;
  bool sized_ = false;
};

}  // namespace

namespace {

std::mutex openedMutex;
std::unordered_map<std::string, std::weak_ptr<BlockFile>> opened;  ///< by address; under openedMutex

}  // namespace

std::shared_ptr<BlockFile> openedNbd(const std::string& address) {
  std::lock_guard lock(openedMutex);
  auto found = opened.find(address);
  return found == opened.end() ? nullptr : found->second.lock();
}

Result<std::shared_ptr<BlockFile>> openNbd(const std::string& text, bool readOnly) {
  auto address = parseAddress(text);
  if (!address) return std::move(address).error();
  auto socket = connectTo(*address);
  if (!socket) return std::move(socket).error();
  auto file = openNbd(std::move(*socket), address->exportName, text, readOnly);
  if (!file) return file;
  std::lock_guard lock(openedMutex);
  opened[text] = *file;
  return file;
}

Result<std::shared_ptr<BlockFile>> openNbd(UniqueFd socket, const std::string& exportName, const std::string& name,
                                           bool readOnly) {
  Export e;
  e.socket = std::move(socket);
  if (Status done = Handshake(e, exportName).run(); !done)
    return std::move(done).error().context("open " + inQuotes(name));
  if (!readOnly && (e.flags & transmission::readOnly) != 0)
    return Error(ErrorKind::permissionDenied, "open " + inQuotes(name) + ": the server exports it read-only");
  return std::shared_ptr<BlockFile>(std::make_shared<NbdFile>(name, std::move(e), readOnly));
}

}  // namespace lodge::image
