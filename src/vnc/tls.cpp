// SPDX-License-Identifier: Apache-2.0
#include "vnc/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/file.h"
#include "base/text.h"

namespace lodge::vnc {

namespace {
constexpr std::size_t kMaxPem = 1 << 20;
constexpr const char* kFilesHint = "tls-cert= and tls-key= take PEM files, as 'openssl req -x509 -nodes' makes them";

Error badFile(const std::string& path, const char* what) {
  const char* reason = ERR_reason_error_string(ERR_get_error());
  ERR_clear_error();
  return Error(ErrorKind::invalidArgument,
               fmt::format("{}: {}{}{}", inQuotes(path), what, reason ? ": " : "", reason ? reason : ""))
      .withHint(kFilesHint);
}
}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::create(const std::string& certificate, const std::string& key) {
  ssl_ctx_st* raw = SSL_CTX_new(TLS_server_method());
  if (!raw) return Error(ErrorKind::outOfMemory, "TLS");
  bool anonymous = certificate.empty();
  auto context = std::shared_ptr<TlsContext>(new TlsContext(raw, anonymous));
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(raw, 0);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);
  if (anonymous) {
    // TLS 1.3 has no anonymous key exchange; OpenSSL offers it at its lowest level only.
    SSL_CTX_set_max_proto_version(raw, TLS1_2_VERSION);
    SSL_CTX_set_dh_auto(raw, 1);
    if (SSL_CTX_set_cipher_list(raw, "AECDH+AES:ADH+AES:@SECLEVEL=0") != 1)
      return Error(ErrorKind::unsupported, "this host's OpenSSL has no anonymous TLS")
          .withHint("name a certificate with tls-cert=FILE,tls-key=FILE");
    return context;
  }
  for (const std::string& path : {certificate, key}) {
    if (auto file = readFile(path, kMaxPem); !file) return std::move(file).error().withHint(kFilesHint);
  }
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(raw, certificate.c_str()) != 1) return badFile(certificate, "no certificate");
  if (SSL_CTX_use_PrivateKey_file(raw, key.c_str(), SSL_FILETYPE_PEM) != 1) return badFile(key, "no key for it");
  return context;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
}

Tls::Tls(const TlsContext& context)
    : ssl_(SSL_new(context.context_)), in_(BIO_new(BIO_s_mem())), out_(BIO_new(BIO_s_mem())) {
  SSL_set_bio(ssl_, in_, out_);
  SSL_set_accept_state(ssl_);
}

Tls::~Tls() {
  SSL_free(ssl_);
}

bool Tls::receive(std::string_view bytes, std::string& plain) {
  ERR_clear_error();
  BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
  if (!ready_) {
    int result = SSL_do_handshake(ssl_);
    if (result != 1) return SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ;
    ready_ = true;
  }
  for (;;) {
    char buffer[4096];
    int count = SSL_read(ssl_, buffer, sizeof buffer);
    if (count <= 0) return SSL_get_error(ssl_, count) == SSL_ERROR_WANT_READ;
    plain.append(buffer, static_cast<std::size_t>(count));
  }
}

void Tls::send(std::string_view plain) {
  ERR_clear_error();
  // A memory BIO takes everything.
  if (!plain.empty()) (void)SSL_write(ssl_, plain.data(), static_cast<int>(plain.size()));
}

void Tls::take(std::string& wire) {
  char* data = nullptr;
  long length = BIO_get_mem_data(out_, &data);
  if (length <= 0) return;
  wire.append(data, static_cast<std::size_t>(length));
  (void)BIO_reset(out_);
}

}  // namespace lodge::vnc
