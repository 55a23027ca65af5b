// SPDX-License-Identifier: Apache-2.0
#include "image/nbd_handshake.h"

#include <fmt/format.h>

#include <cerrno>
#include <vector>

#include "base/text.h"
#include "image/nbd_protocol.h"
#include "image/patience.h"

namespace lodge::image::nbd {

namespace {

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
  static Error broken(int error) {
    if (error == EAGAIN) return unanswered("talk to the NBD server");
    return Error::fromErrno(error, "talk to the NBD server");
  }

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

Status negotiate(Export& e, const std::string& name) {
  limitWaits(e.socket.get(), kServerPatience);
  Status done = Handshake(e, name).run();
  limitWaits(e.socket.get(), std::chrono::seconds(0));
  return done;
}

}  // namespace lodge::image::nbd
