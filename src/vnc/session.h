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
  /// Tells the client of a new text on the clipboard, if there is one.
  void offerClipboard();
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
  /// What the client understands beyond pictures.
  struct Takes {
    bool size = false, screens = false, cursor = false, alphaCursor = false, clipboard = false;
    bool anyCursor() const { return cursor || alphaCursor; }
  };
  /// Fields of an ExtendedDesktopSize.
  enum class SizeReason : std::uint8_t { server, thisClient, otherClient };
  enum class SizeStatus : std::uint8_t { done, prohibited, noResources, badLayout, forwarded };
  struct SizeNote {
    SizeReason reason;
    SizeStatus status;
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
  bool setDesktopSize();
  bool cutText();
  void extendedCutText(std::string_view message);
  void sendClipboardAbilities();
  void sendCutText(std::uint32_t flags, std::string_view payload);
  void sendClipboardText();
  /// The first `count` bytes of the input, or null while there are fewer.
  const std::uint8_t* need(std::size_t count) const;
  void drop(std::size_t count) { in_.erase(0, count); }
  std::vector<Rectangle> changes(const Screen& screen) const;
  const Screen& picture();
  bool updateBesides(const Screen& screen);
  void sendSize(const Screen& screen, SizeNote note);
  void sendCursor(const Cursor::Shape& shape);

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
  Takes takes_;
  std::optional<SizeNote> sizeNote_;          ///< to be sent
  std::optional<Cursor::Shape> shownCursor_;  ///< what the client draws
  std::uint64_t clipboardSeen_ = 0;           ///< the version of the clipboard that the client has, or was told of
  Encoder encoder_;
  std::optional<Wanted> wanted_;
  Screen shown_;
  Screen composed_;    ///< for picture()
  bool fresh_ = true;  ///< the client has no picture of this size yet
  std::uint64_t shownGeneration_ = 0;
};

/// The answer to a challenge (RFC 6143, 7.2.2): DES with the password's bits mirrored in each byte.
std::array<std::uint8_t, 16> passwordResponse(std::string_view password, const std::array<std::uint8_t, 16>& challenge);

}  // namespace lodge::vnc
