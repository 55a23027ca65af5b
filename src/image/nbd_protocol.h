// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"

/// The NBD protocol, after the NetworkBlockDevice project's doc/proto.md. All numbers are big-endian.
namespace lodge::image::nbd {

inline constexpr std::uint64_t kMagic = 0x4e42444d41474943, kOptionMagic = 0x49484156454f5054,
                               kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513, kSimpleReplyMagic = 0x67446698,
                               kStructuredReplyMagic = 0x668e33ef;
inline constexpr std::uint16_t kDefaultPort = 10809;
inline constexpr std::uint32_t kMaxPayload = 32u << 20, kMaxOption = 65536;

namespace handshake {
inline constexpr std::uint16_t fixedNewstyle = 1, noZeroes = 2;
}
enum class Option : std::uint32_t {
  exportName = 1,
  abort = 2,
  list = 3,
  info = 6,
  go = 7,
  structuredReply = 8,
  listMeta = 9,
  setMeta = 10
};
namespace option_reply {
inline constexpr std::uint32_t ack = 1, server = 2, info = 3, metaContext = 4, unsupported = 0x80000001,
                               policy = 0x80000002, invalid = 0x80000003, unknown = 0x80000006;
}
namespace info_kind {
inline constexpr std::uint16_t exported = 0, blockSize = 3;
}
namespace transmission {
inline constexpr std::uint16_t hasFlags = 1, readOnly = 2, sendFlush = 4, sendFua = 8, sendTrim = 32,
                               sendWriteZeroes = 64, sendDf = 128, canMultiConnect = 256;
}
enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  writeZeroes = 6,
  blockStatus = 7
};
namespace command_flag {
inline constexpr std::uint16_t fua = 1, noHole = 2, df = 4, reqOne = 8;
}
namespace chunk {
inline constexpr std::uint16_t done = 1;  // flag
inline constexpr std::uint16_t none = 0, data = 1, hole = 2, blockStatus = 5, error = 0x8001, errorOffset = 0x8002;
}  // namespace chunk
namespace state {
inline constexpr std::uint32_t hole = 1, zero = 2;
}
inline constexpr const char* kAllocation = "base:allocation";

/// Big-endian fields, appended.
class Message {
 public:
  Message& u16(std::uint16_t v) { return put(__builtin_bswap16(v)); }
  Message& u32(std::uint32_t v) { return put(__builtin_bswap32(v)); }
  Message& u64(std::uint64_t v) { return put(__builtin_bswap64(v)); }
  Message& text(const std::string& t) {
    bytes_.insert(bytes_.end(), t.begin(), t.end());
    return *this;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  template <class T>
  Message& put(T v) {
    const char* p = reinterpret_cast<const char*>(&v);
    bytes_.insert(bytes_.end(), p, p + sizeof v);
    return *this;
  }
  std::vector<char> bytes_;
};

/// Big-endian fields of something received; reading past its end gives zero and makes it bad().
class Fields {
 public:
  explicit Fields(const std::vector<char>& bytes) : bytes_(bytes) {}
  std::uint16_t u16() { return take<std::uint16_t>(); }
  std::uint32_t u32() { return take<std::uint32_t>(); }
  std::uint64_t u64() { return take<std::uint64_t>(); }
  std::string text(std::size_t length) {
    if (length > bytes_.size() - at_) return bad_ = true, std::string();
    at_ += length;
    return std::string(bytes_.data() + at_ - length, length);
  }
  std::size_t left() const { return bytes_.size() - at_; }
  bool bad() const { return bad_; }

 private:
  template <class T>
  T take() {
    if (sizeof(T) > bytes_.size() - at_) return bad_ = true, T{0};
    at_ += sizeof(T);
    return loadBe<T>(bytes_.data() + at_ - sizeof(T));
  }
  const std::vector<char>& bytes_;
  std::size_t at_ = 0;
  bool bad_ = false;
};

/// All of it, or an errno value (EPIPE at the end of the stream).
int sendAll(int socket, const void* bytes, std::size_t length, bool more = false);
int receiveAll(int socket, void* bytes, std::size_t length);

/// "nbd://HOST[:PORT][/EXPORT]" or "nbd+unix:///[EXPORT]?socket=PATH".
struct Address {
  std::string host, port, socketPath, exportName;
};
Result<Address> parseAddress(const std::string& text);
Result<UniqueFd> connectTo(const Address& address);

/// errno values as the protocol has them, and back.
std::uint32_t toWire(int error);
int fromWire(std::uint32_t error);

}  // namespace lodge::image::nbd
