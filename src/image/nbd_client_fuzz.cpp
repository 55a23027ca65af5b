// SPDX-License-Identifier: Apache-2.0
// Any bytes as what an NBD server answers. The input: two bytes of length and the bytes of the handshake, sent at once;
// then for each request a byte (bit 0: put the request's cookie where a reply has it) and such a piece.
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>

#include "base/bytes.h"
#include "base/log.h"
#include "image/nbd_client.h"
#include "image/nbd_protocol.h"

namespace {

using namespace lodge;
using namespace lodge::image;

class HostileServer {
 public:
  HostileServer(int socket, std::span<const std::uint8_t> input) : socket_(socket), input_(input) {}

  void run() {
    // A client that waits for the rest of something gets none.
    timeval patience{.tv_sec = 0, .tv_usec = 5000};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    send(piece());
    if (input_.empty()) ::shutdown(socket_, SHUT_WR);
    bool inStep = ignoreHandshake();
    while (inStep && !input_.empty() && request()) {
      bool mend = (input_[0] & 1) != 0;
      input_ = input_.subspan(1);
      std::vector<std::uint8_t> answer = piece();
      // Both kinds of replies have the cookie eight bytes in.
      if (mend && answer.size() >= 16) std::memcpy(answer.data() + 8, cookie_, sizeof cookie_);
      if (!send(answer)) break;
    }
    ::shutdown(socket_, SHUT_RDWR);
  }

 private:
  static constexpr std::uint32_t kMostPayload = 20000;  // what use() writes

  std::vector<std::uint8_t> piece() {
    if (input_.size() < 2) return {};
    std::size_t length = std::min<std::size_t>(loadLe<std::uint16_t>(input_.data()), input_.size() - 2);
    std::vector<std::uint8_t> bytes(input_.begin() + 2, input_.begin() + 2 + static_cast<std::ptrdiff_t>(length));
    input_ = input_.subspan(2 + length);
    return bytes;
  }
  bool send(const std::vector<std::uint8_t>& bytes) { return nbd::sendAll(socket_, bytes.data(), bytes.size()) == 0; }
  /// The client's flags and options, until a request's magic number comes; false if none does.
  bool ignoreHandshake() {
    std::uint32_t last = 0;
    std::uint8_t byte = 0;
    while (last != nbd::kRequestMagic && nbd::receiveAll(socket_, &byte, 1) == 0) last = last << 8 | byte;
    first_ = true;
    return last == nbd::kRequestMagic;
  }
  bool request() {
    std::uint8_t head[28];
    std::size_t known = first_ ? 4 : 0;
    first_ = false;
    if (nbd::receiveAll(socket_, head + known, sizeof head - known) != 0) return false;
    std::memcpy(cookie_, head + 8, sizeof cookie_);
    std::uint16_t command = loadBe<std::uint16_t>(head + 6);
    std::vector<std::uint8_t> payload(command == 1 ? std::min(loadBe<std::uint32_t>(head + 24), kMostPayload) : 0);
    return command != 2 && nbd::receiveAll(socket_, payload.data(), payload.size()) == 0;
  }

  int socket_;
  std::span<const std::uint8_t> input_;
  bool first_ = false;
  std::uint8_t cookie_[8] = {};
};

void use(BlockFile& file) {
  std::vector<std::byte> bytes(20000);
  iovec two[] = {{bytes.data(), 700}, {bytes.data() + 700, 7300}};
  (void)file.readv(512, two);
  (void)file.extent(0, std::max<std::uint64_t>(file.size(), 1));
  (void)file.write(0, bytes.data(), bytes.size());
  (void)file.writeZeroes(4096, 4096, true);
  (void)file.discard(0, 4096);
  (void)file.read(0, bytes.data(), bytes.size());
  (void)file.flush();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = (setLogFile(-1), setLogLevel(LogLevel::error), true);
  (void)quiet;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  UniqueFd client(pair[0]), socket(pair[1]);
  std::thread server([&] { HostileServer(socket.get(), {data, size}).run(); });
  {
    auto file = openNbd(std::move(client), "x", "nbd://test", size % 3 == 0);
    if (file) use(**file);
  }
  server.join();
  return 0;
}
