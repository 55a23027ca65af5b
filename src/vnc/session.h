// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "display/screen.h"
#include "vnc/encoder.h"
#include "vnc/tls.h"

namespace lodge::vnc {

/// One client's conversation (RFB 3.3, 3.7 and 3.8; RFC 6143): bytes in, bytes out, no sockets. The client may send
/// anything. I/O thread.
class Session {
 public:
  /// `password`: at most eight characters count; empty for none. `challenge`: 16 random bytes.
  /// With `tls` clients must come by VeNCrypt (the RFB community's description, 0.2): with the password, if there is
  /// one, inside.
  Session(Display& display, std::string name, std::string password, const std::array<std::uint8_t, 16>& challenge,
          std::shared_ptr<TlsContext> tls = nullptr);

  /// False: the conversation is over (what is in output() may still be sent).
  bool receive(std::string_view bytes);
  /// Adds an update to output(), if the client waits for one and there is something new. `generation` counts the
  /// screen's changes.
  void update(std::uint64_t generation);
  bool waitsForUpdate() const { return wanted_.has_value(); }
  /// Bytes to send; whoever sends some takes them off.
  std::string& output();

 private:
  enum class Stage : std::uint8_t {
    version,
    security,
    tlsVersion,
    tlsKind,
    handshake,
    password,
    shared,
    running,
    over,
  };
  struct Wanted {
    bool incremental;
  };

  bool step();
  bool stepVersion();
  void offerSecurity();
  bool stepSecurity();
  bool stepTlsVersion();
  bool stepTlsKind();
  void startTls();
  std::uint32_t tlsKind() const;
  bool stepPassword();
  void securityResult(bool good);
  bool stepShared();
  bool stepMessage();
  bool setEncodings();
  bool updateRequest();
  bool cutText();
  /// The first `count` bytes of the input, or null while there are fewer.
  const std::uint8_t* need(std::size_t count) const;
  void drop(std::size_t count) { in_.erase(0, count); }
  std::vector<Rectangle> changes(const Screen& screen) const;
  void sendSize(const Screen& screen);

  Display& display_;
  std::string name_, password_;
  std::array<std::uint8_t, 16> challenge_;
  Stage stage_ = Stage::version;
  unsigned minor_ = 8;
  std::shared_ptr<TlsContext> tlsContext_;
  std::unique_ptr<Tls> tls_;
  std::string in_, out_;
  std::string wire_;      ///< `out_` encrypted, once there is TLS
  std::size_t skip_ = 0;  ///< bytes of a message that is not listened to
  PixelFormat format_;
  Encoding encoding_ = Encoding::raw;
  bool takesSize_ = false;
  Encoder encoder_;
  std::optional<Wanted> wanted_;
  Screen shown_;
  bool fresh_ = true;  ///< the client has no picture of this size yet
  std::uint64_t shownGeneration_ = 0;
};

/// The answer to a challenge (RFC 6143, 7.2.2): DES with the password's bits mirrored in each byte.
std::array<std::uint8_t, 16> passwordResponse(std::string_view password, const std::array<std::uint8_t, 16>& challenge);

}  // namespace lodge::vnc
