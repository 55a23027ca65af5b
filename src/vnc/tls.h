// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

struct ssl_ctx_st;
struct ssl_st;
struct bio_st;

namespace lodge::vnc {

/// What a server's TLS conversations have in common: TLS 1.2 and 1.3 with a certificate; or nothing but encryption,
/// which keeps listeners out, but not somebody in the middle (anonymous key exchange, TLS 1.2).
class TlsContext {
 public:
  /// PEM files; both empty: anonymous. Errors: notFound and the like (names the file), invalidArgument (no certificate
  /// or key in it, or not a pair).
  static Result<std::shared_ptr<TlsContext>> create(const std::string& certificate, const std::string& key);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  bool anonymous() const { return anonymous_; }

 private:
  friend class Tls;
  TlsContext(ssl_ctx_st* context, bool anonymous) : context_(context), anonymous_(anonymous) {}
  ssl_ctx_st* context_;
  bool anonymous_;
};

/// The server's side of one TLS conversation, without a socket.
class Tls {
 public:
  explicit Tls(const TlsContext& context);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  /// Bytes from the client; what they say is appended to `plain`. False: the conversation is over, by its end or by an
  /// offence (what take() has may still be sent).
  bool receive(std::string_view bytes, std::string& plain);
  /// The handshake is done: send() may be called.
  bool ready() const { return ready_; }
  void send(std::string_view plain);
  /// Appends bytes for the client.
  void take(std::string& wire);

 private:
  ssl_st* ssl_;
  bio_st *in_, *out_;
  bool ready_ = false;
};

}  // namespace lodge::vnc
