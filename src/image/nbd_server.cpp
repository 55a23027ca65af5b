// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "image/nbd_protocol.h"

namespace lodge::image {

namespace {

using namespace nbd;

struct Request {
  std::uint16_t flags = 0;
  Command command{};
  std::uint64_t cookie = 0, offset = 0;
  std::uint32_t length = 0;
  std::vector<char> payload{};
};

/// One client. Its thread reads requests; some more work on them and answer in any order.
class Session {
 public:
  Session(int socket, Image& image, const ServeOptions& options) : fd_(socket), image_(image), options_(options) {}

  void run() {
    if (!handshake()) return;
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < options_.threads; ++i) workers.emplace_back([this] { work(); });
    for (Request request; receive(request); request = {}) enqueue(std::move(request));
    {
      std::lock_guard lock(mutex_);
      leaving_ = true;
    }
    wanted_.notify_all();
    for (std::thread& worker : workers) worker.join();
    if (!options_.readOnly) image_.flush();
  }

 private:
  // --- negotiation
  bool handshake() {
    Message hello;
    hello.u64(kMagic).u64(kOptionMagic).u16(handshake::fixedNewstyle | handshake::noZeroes);
    if (!send(hello)) return false;
    std::vector<char> flags(4);
    if (receiveAll(fd_, flags.data(), 4) != 0) return false;
    noZeroes_ = (loadBe<std::uint32_t>(flags.data()) & handshake::noZeroes) != 0;
    for (int i = 0; i < 1000; ++i) {
      std::vector<char> head(16);
      if (receiveAll(fd_, head.data(), head.size()) != 0) return false;
      Fields f(head);
      if (f.u64() != kOptionMagic) return false;
      std::uint32_t which = f.u32(), length = f.u32();
      if (length > kMaxOption) return false;
      std::vector<char> data(length);
      if (receiveAll(fd_, data.data(), length) != 0) return false;
      Outcome outcome = option(which, data);
      if (outcome != Outcome::more) return outcome == Outcome::go;
    }
    return false;
  }

  enum class Outcome : std::uint8_t { more, go, end };

  Outcome option(std::uint32_t which, const std::vector<char>& data) {
    Fields f(data);
    switch (static_cast<Option>(which)) {
      case Option::exportName: {
        // This one has no way to say no.
        if (std::string(data.begin(), data.end()) != options_.exportName) return Outcome::end;
        Message m;
        m.u64(image_.size()).u16(exportFlags());
        if (!noZeroes_) m.text(std::string(124, '\0'));
        return send(m) ? Outcome::go : Outcome::end;
      }
      case Option::abort:
        reply(which, option_reply::ack, {});
        return Outcome::end;
      case Option::list: {
        Message m;
        m.u32(static_cast<std::uint32_t>(options_.exportName.size())).text(options_.exportName);
        return again(reply(which, option_reply::server, m) && reply(which, option_reply::ack, {}));
      }
      case Option::structuredReply:
        structured_ = data.empty();
        return again(reply(which, structured_ ? option_reply::ack : option_reply::invalid, {}));
      case Option::listMeta:
      case Option::setMeta:
        return again(metaContext(which, f));
      case Option::info:
      case Option::go:
        return describe(which, f);
      default:
        return again(reply(which, option_reply::unsupported, {}));
    }
  }
  static Outcome again(bool sent) { return sent ? Outcome::more : Outcome::end; }

  bool metaContext(std::uint32_t which, Fields& f) {
    std::string name = f.text(f.u32());
    if (f.bad() || name != options_.exportName) return reply(which, option_reply::unknown, {});
    std::uint32_t count = f.u32();
    bool wanted = count == 0 && which == static_cast<std::uint32_t>(Option::listMeta);
    for (std::uint32_t i = 0; i < count && !f.bad(); ++i) {
      std::string query = f.text(f.u32());
      wanted = wanted || query == kAllocation || query == "base:";
    }
    if (f.bad()) return reply(which, option_reply::invalid, {});
    if (which == static_cast<std::uint32_t>(Option::setMeta)) allocation_ = wanted && structured_;
    Message m;
    m.u32(1).text(kAllocation);
    if (wanted && !reply(which, option_reply::metaContext, m)) return false;
    return reply(which, option_reply::ack, {});
  }

  Outcome describe(std::uint32_t which, Fields& f) {
    std::string name = f.text(f.u32());
    if (f.bad()) return again(reply(which, option_reply::invalid, {}));
    if (name != options_.exportName) return again(reply(which, option_reply::unknown, {}));
    Message about, sizes;
    about.u16(info_kind::exported).u64(image_.size()).u16(exportFlags());
    sizes.u16(info_kind::blockSize).u32(1).u32(4096).u32(kMaxPayload);
    bool sent = reply(which, option_reply::info, about) && reply(which, option_reply::info, sizes) &&
                reply(which, option_reply::ack, {});
    if (!sent) return Outcome::end;
    return which == static_cast<std::uint32_t>(Option::go) ? Outcome::go : Outcome::more;
  }

  std::uint16_t exportFlags() const {
    using namespace transmission;
    std::uint16_t flags = hasFlags | sendFlush | sendFua | canMultiConnect | sendDf;
    return options_.readOnly ? flags | readOnly : flags | sendTrim | sendWriteZeroes;
  }

  bool send(const Message& m) { return sendAll(fd_, m.bytes().data(), m.bytes().size()) == 0; }
  bool reply(std::uint32_t which, std::uint32_t kind, const Message& body) {
    Message m;
    m.u64(kOptionReplyMagic).u32(which).u32(kind).u32(static_cast<std::uint32_t>(body.bytes().size()));
    m.text({body.bytes().data(), body.bytes().size()});
    return send(m);
  }

  // --- transmission
  bool receive(Request& r) {
    std::vector<char> head(28);
    if (receiveAll(fd_, head.data(), head.size()) != 0) return false;
    Fields f(head);
    if (f.u32() != kRequestMagic) return false;
    r.flags = f.u16();
    r.command = static_cast<Command>(f.u16());
    r.cookie = f.u64();
    r.offset = f.u64();
    r.length = f.u32();
    if (r.command == Command::disconnect) return false;
    if (r.command != Command::write) return true;
    if (r.length > kMaxPayload) return false;
    r.payload.resize(r.length);
    return receiveAll(fd_, r.payload.data(), r.length) == 0;
  }

  /// Waits while there is much to do already: a client cannot fill our memory.
  void enqueue(Request request) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return queue_.size() < 2 * options_.threads; });
    queue_.push_back(std::move(request));
    wanted_.notify_one();
  }
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wanted_.wait(lock, [&] { return leaving_ || !queue_.empty(); });
      if (queue_.empty()) return;
      Request request = std::move(queue_.front());
      queue_.pop_front();
      room_.notify_one();
      lock.unlock();
      perform(request);
    }
  }

  int check(const Request& r) const {
    bool changes = r.command == Command::write || r.command == Command::trim || r.command == Command::writeZeroes;
    if (changes && options_.readOnly) return EPERM;
    if (r.command == Command::flush) return 0;
    if (r.offset > image_.size() || r.length > image_.size() - r.offset) return changes ? ENOSPC : EINVAL;
    if (r.command == Command::read && r.length > kMaxPayload) return EOVERFLOW;
    return 0;
  }

  void perform(const Request& r) {
    if (int error = check(r); error != 0) return answer(r, error, {});
    std::vector<char> data;
    int error = 0;
    switch (r.command) {
      case Command::read: {
        data.resize(r.length);
        iovec v{data.data(), data.size()};
        error = r.length == 0 ? 0 : image_.read(r.offset, {&v, 1});
        break;
      }
      case Command::write: {
        iovec v{const_cast<char*>(r.payload.data()), r.payload.size()};
        error = r.length == 0 ? 0 : image_.write(r.offset, {&v, 1});
        break;
      }
      case Command::flush:
        error = options_.readOnly ? 0 : image_.flush();
        break;
      case Command::trim:
        error = r.length == 0 ? 0 : image_.discard(r.offset, r.length);
        break;
      case Command::writeZeroes:
        error = r.length == 0 ? 0 : image_.writeZeroes(r.offset, r.length, (r.flags & command_flag::noHole) == 0);
        break;
      case Command::blockStatus:
        return answerStatus(r);
      default:
        error = EINVAL;
    }
    if (error == 0 && (r.flags & command_flag::fua) != 0 && !options_.readOnly) error = image_.flush();
    answer(r, error, data);
  }

  void answer(const Request& r, int error, const std::vector<char>& data) {
    Message m;
    if (structured_ && r.command == Command::read) {
      std::uint16_t type = error != 0 ? chunk::error : data.empty() ? chunk::none : chunk::data;
      std::size_t length = error != 0 ? 6 : data.empty() ? 0 : 8 + data.size();
      m.u32(kStructuredReplyMagic).u16(chunk::done).u16(type).u64(r.cookie).u32(static_cast<std::uint32_t>(length));
      if (error != 0)
        m.u32(toWire(error)).u16(0);
      else if (!data.empty())
        m.u64(r.offset);
    } else if (structured_ && r.command == Command::blockStatus) {
      m.u32(kStructuredReplyMagic).u16(chunk::done).u16(chunk::error).u64(r.cookie).u32(6).u32(toWire(error)).u16(0);
    } else {
      m.u32(kSimpleReplyMagic).u32(toWire(error)).u64(r.cookie);
    }
    std::lock_guard lock(sendMutex_);
    bool payload = error == 0 && !data.empty();
    if (sendAll(fd_, m.bytes().data(), m.bytes().size(), payload) == 0 && payload)
      sendAll(fd_, data.data(), data.size());
  }

  void answerStatus(const Request& r) {
    if (!allocation_ || r.length == 0) return answer(r, EINVAL, {});
    Message extents;
    std::uint64_t at = r.offset, end = r.offset + r.length;
    for (int i = 0; at < end && i < ((r.flags & command_flag::reqOne) != 0 ? 1 : 512); ++i) {
      BlockStatus status;
      if (int error = chainStatus(image_, at, end - at, status); error != 0) return answer(r, error, {});
      bool zero = status.kind == BlockStatus::Kind::zero;
      extents.u32(static_cast<std::uint32_t>(status.length)).u32(zero ? state::hole | state::zero : 0);
      at += status.length;
    }
    Message m;
    m.u32(kStructuredReplyMagic).u16(chunk::done).u16(chunk::blockStatus).u64(r.cookie);
    m.u32(static_cast<std::uint32_t>(extents.bytes().size() + 4)).u32(1);
    m.text({extents.bytes().data(), extents.bytes().size()});
    std::lock_guard lock(sendMutex_);
    send(m);
  }

  int fd_;
  Image& image_;
  const ServeOptions& options_;
  bool noZeroes_ = false, structured_ = false, allocation_ = false;
  std::mutex mutex_, sendMutex_;
  std::condition_variable wanted_, room_;
  std::deque<Request> queue_;
  bool leaving_ = false;
};

}  // namespace

void serveNbdClient(int socket, Image& image, const ServeOptions& options) {
  int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on Unix sockets, which need it not
  Session(socket, image, options).run();
  ::shutdown(socket, SHUT_RDWR);
}

Result<UniqueFd> listenUnix(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) return Error(ErrorKind::invalidArgument, "the socket's path is too long");
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  mode_t mask = ::umask(0177);  // for the user alone
  bool bound = fd && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0;
  int error = errno;
  ::umask(mask);
  if (!bound || ::listen(fd.get(), 16) != 0)
    return Error::fromErrno(bound ? errno : error, "listen at " + inQuotes(path));
  return fd;
}

Result<UniqueFd> listenLoopback(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = __builtin_bswap16(port);
  name.sin_addr.s_addr = __builtin_bswap32(INADDR_LOOPBACK);
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 || ::listen(fd.get(), 16) != 0)
    return Error::fromErrno(errno, fmt::format("listen at port {}", port));
  return fd;
}

}  // namespace lodge::image
